"""Speed, measured as ratios of what runs in turn on one machine: `tmt bench`.

eager_tmt   the yardstick: the same model as one would first write it
machine     what this machine is, and how fast it multiplies matrices
training    training and inference against the yardstick
scaling     time and memory against frames and utterances
startup     what importing and `tmt --help` cost
report      all of it as one dictionary

And studies that are run by themselves: `replicate` (the headlines on fresh seeds) and `paper_size` (profile paper).
"""
