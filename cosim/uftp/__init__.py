"""Messages of UFTP (Shapeshifter 3.0) as XML: what the market exchanges, for programs that are not ours.

Source: USEF Flex Trading Protocol, kept by the Shapeshifter project. What is taken from it are facts (`facts`, `rules`,
`exchange`), in our own words and code; `docs/decisions/0010-uftp.md` says which edition and where it is narrower.
"""
