#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# README's first command: set-up, build, and the main job from raw text to predictions, on two ranks.
#
#   bash launch/quickstart.sh                                      real texts: descriptions of this system's packages
#   bash launch/quickstart.sh --model FOLDER_OR_CACHED_HUB_ID --train FILE [--validation FILE]
#                             [--text_column NAME] [--label_column NAME]             the same on your own model and data
#   --output DIR   folder for all files (default runs/quickstart)      --ranks N   (default 2)
#
# A second call reuses what exists: a finished training run says so and costs seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

output=runs/quickstart ranks=2 model='' train='' validation='' text_column=text label_column=label
while [ $# -gt 0 ]; do
  case $1 in
    --model | --train | --validation | --output | --ranks | --text_column | --label_column)
      [ $# -ge 2 ] || { echo "quickstart: $1 needs a value" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2
      ;;
    -h | --help) sed -n '3,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "quickstart: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
if [ -n "$model" ] && [ -z "$train" ] || [ -z "$model" ] && [ -n "$train" ]; then
  echo "quickstart: --model and --train must be given together" >&2
  exit 2
fi

declare -a phases=()
phase_name='' phase_start=0
phase() {
  local now=$SECONDS
  if [ -n "$phase_name" ]; then phases+=("$(printf '%5d s  %s' $((now - phase_start)) "$phase_name")"); fi
  phase_name=${1:-} phase_start=$now
  if [ -n "$phase_name" ]; then printf '\n== %s\n' "$phase_name"; fi
}

phase "Set-up: packages and Python prefix"
bash cluster/bootstrap/bootstrap.sh
python=$(bash cluster/bootstrap/bootstrap.sh --print-prefix)/bin/python3

phase "Build"
cmake --preset release -DNEOLOOM_PYTHON_PREFIX="${python%/bin/python3}" >/dev/null
NINJA_STATUS='[%f/%t] ' ninja -C build neoloom neoloom_cuda_plugin
neoloom=build/neoloom

data=$output/data
if [ -z "$train" ]; then
  phase "Text: descriptions of this system's packages"
  [ -f "$data/about.json" ] || "$python" launch/quickstart/package_texts.py --output "$data"
  "$python" -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1])), indent=1))' "$data/about.json"
  train=$data/train.jsonl validation=$data/validation.jsonl label_column=section

  phase "Base model: a tokenizer from the texts, and a small GPT-Neo with random weights"
  [ -f "$output/blank/model.safetensors" ] ||
    "$python" launch/quickstart/blank_model.py --corpus "$data/corpus.jsonl" --output "$output/blank"

  phase "Pretraining it in full on $ranks ranks"
  cluster/local/mpirun.sh -np "$ranks" "$neoloom" train --config configs/quickstart_pretrain.yaml \
    --set "model_config.pretrained_model_name=$output/blank" --set "data.train=$data/corpus.jsonl" \
    --set "trainer_config.output_dir=$output/pretrain"
  model=$output/pretrain/model
elif [ -z "$validation" ]; then
  phase "Holding out every tenth row of $train"
  mkdir -p "$data"
  "$python" launch/quickstart/hold_out.py --input "$train" --output "$data"
  validation=$data/validation.${train##*.} train=$data/train.${train##*.}
fi

classify() {  # classify OUTPUT_DIR [MORE ARGUMENTS]: the LoRA run, on all ranks
  local folder=$1
  shift
  cluster/local/mpirun.sh -np "$ranks" "$neoloom" train --config configs/quickstart_classify.yaml \
    --set "model_config.pretrained_model_name=$model" --set "data.train=$train" --set "data.validation=$validation" \
    --set "data.text_column=$text_column" --set "data.label_column=$label_column" \
    --set "trainer_config.output_dir=$folder" "$@"
}
run=$output/classify

phase "LoRA classification on $ranks ranks; one rank is killed half way"
if [ ! -d "$run/adapter" ]; then
  half=$("$neoloom" train --config configs/quickstart_classify.yaml --dry-run \
    --set "model_config.pretrained_model_name=$model" --set "data.train=$train" --set "data.validation=$validation" \
    --set "data.text_column=$text_column" --set "data.label_column=$label_column" \
    --set "runtime.global_batch_size=$((16 * ranks))" | awk '$1 == "steps" { print int($2 / 2) + 1 }')
  echo "the last rank will be killed (SIGKILL) at step $half"
  status=0
  NEOLOOM_FAULT="kill:rank=$((ranks - 1)):step=$half" classify "$run" 2>&1 | sed -u 's/^/  /' || status=${PIPESTATUS[0]}
  echo "the job ended with exit code $status, as it should when a rank dies; its checkpoints:"
  "$neoloom" checkpoint list "$run"
fi

phase "The same command again resumes the run and finishes it"
classify "$run"

phase "Evaluation against two baselines"
if [ ! -d "$output/untrained/adapter" ]; then
  # One step with learning rate 0: the adapter and the head as they start.
  classify "$output/untrained" --set trainer_config.max_steps=1 --set trainer_config.learning_rate=0 \
    --set trainer_config.eval_strategy=no >"$output/untrained.log" 2>&1 || { cat "$output/untrained.log"; exit 1; }
fi
"$neoloom" evaluate --run "$run" --data "$validation" --output "$output/trained.json" >/dev/null
"$neoloom" evaluate --run "$output/untrained" --data "$validation" --output "$output/untrained.json" >/dev/null 2>&1
"$python" launch/quickstart/verdict.py --trained "$output/trained.json" --untrained "$output/untrained.json"

phase "Five predictions"
"$neoloom" predict --run "$run" --input "$validation" --output "$output/predictions.jsonl"
"$python" launch/quickstart/show_predictions.py --input "$validation" --predictions "$output/predictions.jsonl" \
  --text_column "$text_column" --label_column "$label_column"

if [ -d "$output/pretrain/model" ]; then
  phase "A sample of generated text"
  "$neoloom" generate --model "$output/pretrain/model" --prompt "This package contains" --max_tokens 60 \
    --temperature 0.8 --top_k 40 --repetition_penalty 1.2 --repetition_penalty_range 32 --seed 1
fi

phase
printf '\n== Where the results are\n'
printf '%-42s %s\n' \
  "$run/adapter/" "the result: loads in PEFT and transformers" \
  "$run/metrics.jsonl" "every logged step, evaluation, checkpoint" \
  "$run/checkpoints/" "HDF5; the same command resumes from the newest" \
  "$run/config.yaml" "the configuration with every key" \
  "$output/predictions.jsonl" "labels and scores of the held-out rows"
printf '\n== Time\n'
printf '%s\n' "${phases[@]}"
printf '%5d s  in total\n' "$SECONDS"
