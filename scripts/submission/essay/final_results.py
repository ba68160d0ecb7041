# %% [markdown]
# `final_results.json` and `learning_curves.png` say what the curriculum did: the evaluations, the
# weights at the end, and the means of the samples in its three phases.

# %%
phases = means_by_phase(stages[-1]["history"], profile.grpo.curriculum.borders)
final_results = {
    "recipe": run.recipe, "seed": run.seed, "evaluation": results["evaluation"],
    "weights_at_the_end": profile.rewards.late, "phases": phases,
}  # fmt: skip
write_json(folder.path / "final_results.json", final_results)
plot_grpo(stages[-1]["history"], folder.plots / "learning_curves.png")
