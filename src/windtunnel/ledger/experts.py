"""What experts cost while decoding, where reading weights takes the time: why few of them are chosen at scale."""


def experts_touched(experts: int, choices: int, tokens: int) -> float:
    """Expected number of distinct experts that `tokens` tokens meet under balanced routing: E (1 - (1 - k/E)^b)."""
    return experts * (1 - (1 - choices / experts) ** tokens)


def expert_bytes_read(experts: int, choices: int, tokens: int, expert_bytes: float) -> float:
    """Expected bytes of expert weights that are read for a token when `tokens` are decoded together, one layer."""
    return experts_touched(experts, choices, tokens) * expert_bytes / tokens
