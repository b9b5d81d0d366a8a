"""Costs of attention, and decoding with drafts: FlashAttention-2, Longformer, Efficient attention, speculation."""

from windtunnel.claims.benches import doubled, self_test
from windtunnel.claims.claim import Claim, Figure

_LINEAR = Figure(text="2 (4 would be full attention's)", low=1.8, high=2.2, nothing=4.0)


CLAIMS = (
    Claim(
        name="flash2-speed",
        paper="Dao 2023, arXiv 2307.08691",
        place="section 4.1, figure 4",
        says="FlashAttention-2 is about twice as fast as FlashAttention.",
        setting="A100, bfloat16, 512 to 16k tokens; 1.7 to 3.0x",
        quantity="speed over the first FlashAttention's",
        figure=Figure(text="2x (1.7 to 3.0)", low=1.7, high=3.0, nothing=1.0),
        missing="Needs a GPU with a known peak; there was none.",
    ),
    Claim(
        name="flash2-peak",
        paper="Dao 2023, arXiv 2307.08691",
        place="section 4.1",
        says="It reaches up to 73 % of the GPU's peak.",
        setting="A100, bfloat16, forward pass: 230 TFLOP/s",
        quantity="share of the dense peak, %",
        figure=Figure(text="50 to 73 %", low=50.0, high=73.0),
        missing="Needs a GPU with a known peak; there was none.",
    ),
    Claim(
        name="longformer-linear",
        paper="Beltagy et al. 2020, arXiv 2004.05150",
        place="section 3.1, figure 1",
        says="The cost of a sliding window grows linearly with the length.",
        setting="window 512, up to 23k tokens, GPU",
        quantity="time at twice the length over that at once",
        figure=_LINEAR,
        read=doubled("window", ", by blocks", ", by blocks, half the length"),
        command="windtunnel bench window --json",
    ),
    Claim(
        name="efficient-linear",
        paper="Shen et al. 2018, arXiv 1812.01243",
        place="section 3.3",
        says="The cost of efficient attention grows linearly with the length.",
        setting="by counting operations",
        quantity="time at twice the length over that at once",
        figure=_LINEAR,
        read=doubled("linear", "means of the past (softmax, exp)", "means of the past, half the length"),
        command="windtunnel bench linear --json",
    ),
    Claim(
        name="speculation-exact",
        paper="Leviathan et al. 2023, arXiv 2211.17192",
        place="appendix A.1",
        says="Speculative decoding leaves the target's distribution alone.",
        setting="a proof",
        quantity="largest total variation between its texts and the target's, by enumeration",
        figure=Figure(text="0", low=0.0, high=1e-14, whole=True),
        read=self_test("speculation"),
        command="windtunnel selftest speculation --json",
    ),
)
