"""A page to look at: every stage of finished pictures as the store holds them, in one HTML file without a network.

Nothing is developed here. What the store lacks is said on the page; the one thing that is computed anew is where FC4
looked, which no artifact keeps.
"""
