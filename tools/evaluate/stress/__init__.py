"""How models stand degraded images and attacks: --degradations and --attacks of kd-eval."""
