"""The tables of the configuration say what the configuration says."""

from submission.bench.show import overview
from submission.essay import profiles


def applied(recipe):
    return [profiles.RECIPES[recipe].applied(profile) for profile in profiles.PROFILES.values()]


RUN = profiles.read_run({"PROFILE": "kaggle"}, "cpu")


def test_every_profile_is_a_column_and_the_recipe_counts():
    lines = overview.settings_table(applied("warm_start_grpo")).splitlines()
    assert lines[0] == "| setting | `tiny` | `small` | `kaggle` | reason |"
    assert "| GRPO: peak rate | 0.002 | 0.0001 | 5e-06 | lower" in "\n".join(lines)
    assert "| SFT: updates, at most | 0 | 0 | 0 |" in overview.settings_table(applied("continue"))


def test_no_setting_is_without_a_reason():
    for name, value, reason in overview.settings_of_profile(profiles.KAGGLE):
        assert name
        assert value
        assert reason


def test_every_source_is_shown_with_its_licence():
    table = overview.sources_table([profiles.KAGGLE])
    for source in (*RUN.sft_sources, *RUN.profile.grpo_sources):
        assert any(source.location in x and source.licence in x for x in table.splitlines())


def test_shares_rows_and_lengths_are_those_of_the_mixture(rows, tokenizer):
    lines = overview.mixture_table(rows, tokenizer).splitlines()[2:]
    assert len(lines) == sum(len(mixture.groups) for mixture in rows.values())
    sft = next(line for line in lines if line.startswith("| sft |"))
    count = sum(len(found) for found in rows["sft"].groups.values())
    assert f"| {count:,} | 100% |" in sft
    grpo = next(line for line in lines if line.startswith("| grpo |"))
    assert grpo.endswith("| – |")  # its rows have no trace


def test_a_recipe_without_a_warm_start_has_no_source_for_one():
    assert "| SFT |" not in overview.sources_table(applied("continue"))
    assert "`tiny`" in overview.sources_table(applied("worked_only"))  # `kaggle` has none
