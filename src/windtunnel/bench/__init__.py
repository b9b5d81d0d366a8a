"""Speed, as ratios against rivals: every figure comes from processes that took turns, and carries its spread."""
