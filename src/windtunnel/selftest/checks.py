"""The self-tests in the protocol's order (section 15)."""

from windtunnel.selftest import bits, causality, drafts, nulls, operations, order, simulated, studies
from windtunnel.selftest.check import Check

CHECKS: tuple[Check, ...] = (
    Check(
        name="same-arm",
        number=1,
        title="A/A: the baseline against itself is not told apart",
        run=simulated.same_arm,
    ),
    Check(
        name="positive-control",
        number=2,
        title="The baseline with 1.25x the tokens is found at 1.25",
        run=simulated.positive_control,
    ),
    Check(
        name="negative-control",
        number=3,
        title="At four times its rate it loses, and the sweep repairs that",
        run=simulated.negative_control,
    ),
    Check(
        name="null-variants",
        number=4,
        title="Ideas turned off leave the baseline's logits",
        run=nulls.null_variants,
    ),
    Check(
        name="coverage",
        number=5,
        title="Intervals of simulated studies hold the truth",
        run=simulated.coverage_of_studies,
    ),
    Check(
        name="operations",
        number=6,
        title="The ledger's FLOPs are those that torch counts",
        run=operations.operations,
    ),
    Check(
        name="sizes",
        number=6,
        title="The ledger's parameters and states are the real tensors'",
        run=operations.sizes,
    ),
    Check(
        name="order",
        number=7,
        title="One order of data: arms, micro-batches, resumed runs",
        run=order.data_order,
    ),
    Check(
        name="causality",
        number=8,
        title="No logit feels a later token, no document another",
        run=causality.later_tokens,
    ),
    Check(
        name="decoding",
        number=8,
        title="Decoding in chunks equals one pass",
        run=causality.decoding,
    ),
    Check(
        name="bits-per-byte",
        number=9,
        title="A uniform model costs log2 V bits a byte",
        run=bits.bits_per_byte,
    ),
    Check(
        name="report",
        number=10,
        title="The same files give the same report",
        run=studies.report,
    ),
    Check(
        name="speculation",
        number=11,
        title="Drafts leave the target's distribution alone",
        run=drafts.speculation,
    ),
    Check(
        name="same-arm-200",
        number=1,
        title="A/A over 200 relabelled and simulated studies",
        run=simulated.same_arm_relabelled,
        long=True,
    ),
    Check(
        name="coverage-in-full",
        number=5,
        title="Coverage of both estimators over all designs",
        run=simulated.coverage_in_full,
        long=True,
    ),
    Check(
        name="controls",
        number=3,
        title="A/A, positive and negative control as a real study",
        run=studies.controls,
        long=True,
    ),
)
