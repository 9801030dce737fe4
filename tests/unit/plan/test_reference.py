from __future__ import annotations

from scalellm_trt import facts
from scalellm_trt.plan import reference


def test_at_least_40_answers_are_listed_and_every_rule_is_heard_in_one() -> None:
    groups = reference.groups_of_table()
    assert len(groups) >= 40
    said = " ".join(message for group in groups for message in group[0].messages)
    for rule in facts.combination_rules().values():
        if not rule.is_allowed or not rule.is_confirmed:
            assert rule.reason in said or rule.name == "bfloat16-on-turing", rule.name
        for effect in rule.effects:
            assert effect.text in said, (rule.name, effect.name)


def test_a_combination_without_side_effects_is_not_listed() -> None:
    listed = {(line.card, line.weights, line.kv_cache_dtype) for group in reference.groups_of_table() for line in group}
    assert ("a100-80g", "full_prec", "auto") not in {key for key in listed if key[0] != "t4"}
    assert ("rtx4090", "int8_wo", "fp8") in listed


def test_each_answer_is_the_same_whatever_the_card_is_called() -> None:
    for group in reference.groups_of_table():
        assert len({len(line.messages) for line in group}) == 1
        assert len({line.is_refused for line in group}) == 1
