"""Who is served first, network operator (DSO) or transmission operator (TSO): coordination schemes as lists of stages.

A scheme is data (``schemes/*.yaml``); every stage is one call of one function (`stage.clear_stage`), made by the party
that solves it with what messages brought it; `coordinate.coordinate` passes the messages on.
"""
