"""docs/compatibility.md: every row of its tables is held by tests that are named here and exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<tool>.+?) \| (?P<verdict>[^|]*) \| (?P<how>.*) \|$", re.M)

# A row's first words -> the tests that hold it: file (in tests/) and function.
HELD = {
    "Step hooks": [
        "peers/test_torch_hooks.py::test_step_hooks_fire_once_a_step_around_the_update",
        "peers/test_torch_hooks.py::test_in_two_calls_the_pre_hook_sees_and_may_change_d",
        "peers/test_torch_hooks.py::test_global_hooks_count_one_step",
        "peers/test_torch_hooks.py::test_the_profiler_records_one_step",
        "peers/test_torch_hooks.py::test_state_dict_hooks_see_and_replace_it",
        "peers/test_torch_hooks.py::test_load_hooks_see_and_replace_it",
    ],
    "`torch.amp.GradScaler`": [
        "peers/test_scaled_two_calls.py::test_both_halves_with_the_scaler_equal_the_unscaled_loop",
        "peers/test_scaled_two_calls.py::test_a_closure_with_the_scaler_equals_the_unscaled_loop",
    ],
    "A loss that a scaler has scaled": [
        "peers/test_scaled_two_calls.py::test_a_scaler_that_no_step_was_told_of_is_refused_before_anything_moves",
        "peers/test_scaled_two_calls.py::test_a_loss_that_nobody_keeps_is_not_proven_and_stops_at_update",
    ],
    "TorchScript": [
        "peers/test_scripted.py::test_a_scripted_module_is_guarded",
        "peers/test_scripted.py::test_two_calls_of_a_wholly_scripted_model_are_warned_of",
    ],
    "Gradients put into": ["peers/test_gradients_by_hand.py::test_it_is_the_step_that_backward_takes"],
    "Numbers, lists": [
        "peers/test_randomness.py::test_a_pointer_that_advances_twice_is_named_once",
        "peers/test_randomness.py::test_a_container_that_a_forward_grows_is_named_once",
        "peers/test_randomness.py::test_as_a_buffer_it_is_right",
    ],
    "Adversarial examples": [
        "peers/test_other_forwards.py::test_adversarial_examples_in_a_closure_are_replayed_and_in_two_calls_are_not"
    ],
    "`scaler.step(opt)`": [
        "peers/test_scaled_two_calls.py::test_a_refused_scaler_step_is_refused_in_the_same_words_every_time"
    ],
    "Learning-rate schedulers": ["peers/test_recipes_training.py::test_schedulers_see_the_optimizer_that_they_drive"],
    "`AveragedModel`": ["peers/test_recipes_training.py::test_averages_are_of_w_and_never_of_w_plus_e"],
    "Gradient checkpointing": ["peers/test_recipes_training.py::test_gradient_checkpointing_inside_a_model"],
    "`torch.compile`": ["peers/test_compiled_sequential.py::test_every_pass_runs_compiled_code"],
    "`torch.func.functional_call`": ["peers/test_other_forwards.py::test_every_way_to_call_a_model"],
    "Two optimizers": [
        "peers/test_several_optimizers.py::test_two_ascents_at_once_in_any_order",
        "peers/test_several_optimizers.py::test_step_together_by_the_definition",
    ],
    "A fenland step inside": [
        "peers/test_several_optimizers.py::test_a_closure_inside_another_optimizer_s_closure_is_refused"
    ],
    "`torch.nn.utils.clip_grad_norm_`": [
        "peers/test_public_reports.py::test_clipping_by_hand_before_ascend",
        "peers/test_public_reports.py::test_clipping_by_hand_changes_what_reads_the_length_of_g",
    ],
    "Distributed checkpoints": [
        "peers/test_public_reports.py::test_distributed_checkpoint_of_a_fresh_optimizer_leaves_it_fresh"
    ],
    "`parametrize.cached()`": [
        "peers/test_made_of_weights.py::test_the_cache_of_parametrize_is_emptied_where_weights_move"
    ],
    "`weight_norm`": [
        "peers/test_made_of_weights.py::test_what_a_model_makes_of_its_weights_is_made_anew_at_the_ascent_point"
    ],
    "Frozen and unfrozen": [
        "peers/test_other_habits.py::test_between_steps",
        "peers/test_other_habits.py::test_a_copy_in_the_middle_goes_on",
    ],
    "A momentum encoder": [
        "peers/test_steps_inside_closures.py::test_a_momentum_encoder_that_moves_in_forward_is_named_once",
        "peers/test_steps_inside_closures.py::test_a_momentum_encoder_that_moves_after_the_step_is_right",
    ],
    "Step in backward": ["peers/test_public_reports.py::test_an_optimizer_in_backward_is_refused"],
    "Lightning `Trainer`": ["integrations/test_lightning.py::test_the_trainer_equals_the_plain_loop"],
    "Lightning with `accumulate_grad_batches`": [
        "peers/test_lightning_alone.py::test_accumulation_without_the_callback_is_refused_by_name"
    ],
    "Lightning manual": [
        "peers/test_lightning_alone.py::test_manual_optimization_counts_its_steps_with_a_closure",
        "peers/test_lightning_alone.py::test_two_calls_train_the_same_but_lightning_does_not_count_them",
    ],
    "Lightning `StochasticWeightAveraging`": [
        "peers/test_lightning_alone.py::test_the_batch_norm_epoch_of_swa_only_measures",
        "peers/test_lightning_alone.py::test_weight_averaging_sees_w_and_never_w_plus_e",
    ],
    "Lightning, an `optimizer_zero_grad`": [
        "peers/test_lightning_alone.py::test_an_optimizer_zero_grad_that_skips_is_refused"
    ],
    "Fabric": ["integrations/test_lightning.py::test_fabric_takes_the_closure_as_it_is"],
    "Hugging Face `Trainer`": ["integrations/test_transformers.py::test_the_trainer_equals_the_plain_loop"],
    "The stock `Trainer`": [
        "peers/test_stock_trainers.py::test_the_stock_trainer_of_transformers",
        "peers/test_stock_trainers.py::test_a_bare_accelerate_loop",
    ],
    "Accelerate": ["integrations/test_accelerate.py::test_the_loop_equals_the_plain_one"],
    "`accelerator.accumulate`": [
        "peers/test_public_reports.py::test_accelerate_s_step_with_a_closure_while_it_accumulates_is_refused"
    ],
    "skorch": ["peers/test_recipes.py::test_skorch_s_structure_works_as_it_is"],
    "ignite": ["peers/test_recipes.py::test_ignite_s_update_function_steps_with_a_closure"],
    "fastai": ["peers/test_recipes.py::test_a_trainer_with_callbacks_takes_the_second_pass_in_one"],
    "timm's": [
        "peers/test_recipes.py::test_timm_s_loop_with_its_scaler",
        "peers/test_recipes.py::test_timm_s_loop_as_it_stands_is_refused",
    ],
    "LoRA": ["peers/test_recipes.py::test_lora_moves_the_adapters_alone"],
    "Fine-tuning": ["peers/test_recipes_training.py::test_a_fine_tuning_loop_with_accumulation_divides_by_all_tokens"],
    "Those of `torch.optim`": ["contract/test_edges.py::test_every_optimizer_of_torch_is_a_base"],
    "LBFGS": [
        "contract/test_arguments.py::test_lbfgs_is_refused",
        "peers/test_base_interfaces.py::test_a_base_whose_step_needs_a_closure_is_refused_by_name",
    ],
    "Adadelta": ["contract/test_edges.py::test_every_optimizer_of_torch_is_a_base"],
    "Schedule-free": [
        "peers/test_base_interfaces.py::test_schedule_free_switches_through_the_wrapper",
        "peers/test_schedulefree.py::test_it_equals_the_loop_by_hand",
        "peers/test_schedulefree.py::test_the_trainer_with_optim_schedule_free_adamw",
        "peers/test_schedulefree.py::test_its_classes_that_evaluate_a_closure_are_refused_by_name",
    ],
    "Hugging Face `Adafactor`": [
        "peers/test_base_interfaces.py::test_adafactor_with_its_own_rate_and_its_schedule",
        "peers/test_base_interfaces.py::test_what_needs_a_learning_rate_says_so_before_anything_steps",
    ],
    "pytorch_optimizer": ["peers/outside.py::judge"],
    "Lookahead": ["peers/test_base_interfaces.py::test_its_checkpoint_goes_round"],
    "AdaHessian": [
        "peers/test_base_interfaces.py::test_bases_that_differentiate_the_gradient_are_refused_in_these_words"
    ],
    "Opacus'": ["peers/test_base_interfaces.py::test_a_private_optimizer_is_refused_by_name"],
    "State in tensor": [
        "peers/test_base_interfaces.py::test_with_an_ascent_it_is_sam_around_the_base",
        "peers/test_base_interfaces.py::test_its_checkpoint_goes_round",
    ],
    "torch's": ["peers/test_foreign_closures.py::test_every_way_to_zero_in_the_closure_is_right"],
    "a closure that steps": [
        "peers/test_steps_inside_closures.py::test_a_plain_optimizer_of_the_same_parameters_is_refused"
    ],
    "davda54's": ["peers/test_foreign_closures.py::test_gradients_that_are_there_before_and_still_there_are_refused"],
    "Values that a closure": [
        "peers/test_public_reports.py::test_what_a_closure_leaves_in_outer_variables_is_of_its_last_call"
    ],
}


def rows() -> list[str]:
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    found = [m["tool"] for m in ROW.finditer(text)]
    return [tool for tool in found if tool not in ("tool", "base", "closure", "---") and not tool.startswith("--")]


def test_every_row_is_held_and_nothing_else_is_listed():
    claimed = {tool: [key for key in HELD if tool.startswith(key)] for tool in rows()}
    assert len(claimed) > 35
    # The longest key decides: "Lightning `Trainer`" is not "Lightning with ...".
    assert not [tool for tool, keys in claimed.items() if not keys]
    used = {max(keys, key=len) for keys in claimed.values()}
    assert used == set(HELD)
    assert len(used) == len(claimed), "one key a row"


def test_what_a_cell_quotes_is_what_the_code_says():
    """A cell that quotes a message quotes the code: its words stand in a string of the source, or a number of them."""
    said = ""
    for path in sorted((ROOT / "src" / "fenland").rglob("*.py")):
        if "lab" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said += node.value + " "
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    quotes = [q for m in ROW.finditer(text) for q in re.findall(r'(?<![`(=])"([^"`]{12,})"', m["how"])]
    assert len(quotes) >= 4
    for quote in quotes:
        words = re.sub(r"^SGD", "", quote)  # the base's own name
        assert words in said, quote


def test_the_tests_that_hold_them_exist():
    for tool, names in HELD.items():
        for name in names:
            path, function = name.split("::")
            tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
            defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function in defined, f"{tool}: {name}"
