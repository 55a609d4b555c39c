"""Commands that inspect, evaluate, demonstrate and measure."""
