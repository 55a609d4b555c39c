"""How report pages look: light and dark, on a desk and on a phone."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2127; --soft: #5f6872;
  --line: #d9dde2; --card: #f5f6f8; --student: #1f77b4; --teacher: #d9731a; --control: #2a9d5c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ed; --soft: #9aa4ae;
  --line: #343a42; --card: #1d2126; --student: #5aa9e6; --teacher: #f0954a; --control: #4fc285; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .8rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
header p, figcaption, small, dt { color: var(--soft); }
header p { margin: 0; }
p, ul { max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; font-weight: 400;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { font-weight: 600; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right;
  padding: .3rem 0 .3rem 1.4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tile { flex: 1 1 9rem; padding: .8rem 1rem; background: var(--card); border-radius: .5rem; }
.tile b { display: block; font-size: 1.7rem; line-height: 1.2; font-weight: 600; }
.tile span, .tile small { display: block; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
.row > div { flex: 1 1 17rem; min-width: 0; }
figure { margin: .5rem 0; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink);
  stroke-linejoin: round; }
figcaption { font-size: .9rem; margin-top: .2rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--soft); }
.gallery { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); }
.card { display: grid; grid-template-columns: 6rem 1fr; gap: .2rem .8rem; padding: .7rem;
  background: var(--card); border-radius: .5rem; font-size: .82rem; line-height: 1.35; }
.card img { width: 6rem; height: 6rem; object-fit: contain; }
.card img.small { image-rendering: pixelated; }
.card .place { grid-column: 1 / -1; color: var(--soft); overflow-wrap: anywhere; }
.card h3 { font-size: .75rem; font-weight: 600; margin: 0; color: var(--soft); }
.card h3:not(:first-child) { margin-top: .35rem; }
.sheet { display: grid; gap: .5rem; margin: .4rem 0 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)); }
.sheet > div { padding: .4rem; background: var(--card); border-radius: .4rem; font-size: .78rem;
  line-height: 1.3; min-width: 0; }
.sheet img { display: block; width: 100%; height: 5.6rem; object-fit: contain; }
.sheet img.small { image-rendering: pixelated; }
.sheet span, .sheet small { display: block; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.guess { display: flex; justify-content: space-between; gap: .5rem; position: relative;
  padding: 0 .2rem; }
.guess span { position: relative; }
.guess span:first-of-type { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.guess i { position: absolute; inset: 1px auto 1px 0; opacity: .22; border-radius: 2px; }
.guess.right { font-weight: 600; }
"""
"""CSS. The colours of student, teacher and control are those of `figures.PALETTE`."""
