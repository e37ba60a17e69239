"""What the networks learn from, and the sample raws: photographs taken back to what a sensor would have seen."""
