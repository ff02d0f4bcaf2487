// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "launch/config/config_files.h"
#include "model/generation/next_token.h"

namespace neoloom::launch {

struct TrainArguments {
  ConfigFiles config;
  std::vector<std::string> overrides;  // --set group.key=value
  std::string resume = "auto";         // auto | none | a checkpoint file, or a folder of them
  int64_t expect_ranks = 0;            // 0: any number
  std::string level;                   // --verbose, --quiet: logging.level; empty: of the configuration
  bool extend = false;
  bool print_config = false;
  bool dry_run = false;
};

struct PrepareArguments {
  ConfigFiles config;
  std::vector<std::string> overrides;
};

struct PlanArguments {
  ConfigFiles config;
  std::vector<std::string> overrides;
  int64_t ranks = 1;
  int64_t ranks_per_node = 0;  // 0: as many as fit on a machine like this one, or 8 GPUs
  bool measure = false;
  std::string device;        // cpu | cuda | a name of device_sheets.h; empty: of the configuration
  double gflops = 0.0;       // GFLOP/s that a rank's GEMMs reach; 0: not stated
  double memory_gb = 0.0;    // 10^9 bytes; 0: not stated
  double link_gbps = 100.0;  // 10^9 bits per second
  double latency_us = 10.0;
};

/// The model that a command works on: of a run, or a base model with an optional adapter.
struct ModelArguments {
  std::string run;      // run folder; or
  std::string model;    // folder or hub id
  std::string adapter;  // PEFT folder on top of `model`
  std::vector<std::string> overrides;
  std::string checkpoint = {};  // of `run`, in place of its result: a step, `last`, or a file; empty: the result
  bool no_calibration = false;  // scores of the plain logits
};

/// The models that one command compares: several runs, or several adapters on one base. Each word is a folder, or
/// NAME=FOLDER.
struct ModelsArguments {
  std::vector<std::string> runs;
  std::string model;
  std::vector<std::string> adapters;
  std::vector<std::string> overrides;
  std::string checkpoint;  // of every run
  bool no_calibration = false;
};

struct EvaluateArguments {
  ModelsArguments models;
  std::string data;  // empty: the run's validation file
  std::string output;
};

struct PredictArguments {
  ModelsArguments models;
  std::string input;
  std::string output;             // empty: standard output
  std::vector<std::string> keep;  // columns of the input: NAME or KEY=NAME
};

struct GenerateArguments {
  ModelArguments model;
  std::string prompt;
  std::string prompt_file;  // one prompt a line, or JSONL
  model::GenerationOptions options;
  std::vector<std::string> stop_strings;
  bool no_template = false;  // prompts are whole texts
  int64_t num_return_sequences = 1;
  int64_t batch_size = 8;       // texts at a time on each rank
  std::set<std::string> given;  // options given on the command line, e.g. "--top_k"
  bool json = false;
};

struct ExportArguments {
  ModelArguments model;
  std::string format = "peft";  // peft | merged
  std::string dtype = "float32";
  uint64_t max_shard_bytes = 5'000'000'000;
  std::string output;
};

struct InitArguments {
  std::string data;               // file or pattern
  std::string validation;         // likewise
  std::string model;              // empty: the default
  std::vector<std::string> from;  // JSON of TrainingArguments and LoraConfig
  std::string output = "run.yaml";
};

struct StatusArguments {
  std::string run;
  bool json = false;
};

struct TopArguments {
  std::string run;
  double interval_seconds = 2.0;
  bool once = false;
};

struct DoctorArguments {
  std::string device = "auto";
  std::string output_dir = ".";  // folder whose disk is tested
  bool json = false;
};

struct ReportArguments {
  std::vector<std::string> runs;  // FOLDER or NAME=FOLDER
  std::string output;             // empty: report.html in the folder of the only run
};

struct TokenizeArguments {
  std::string tokenizer;
  std::string input;
  std::string text;
  bool decode = false;
};

struct DownloadArguments {
  std::string name;
  std::string revision = "main";
};

struct CheckpointArguments {
  std::string verb;  // list | inspect | verify
  std::string path;
};

struct CommandLine {
  std::string command;  // empty: only print `text` (help, version)
  std::string text;
  InitArguments init;
  TrainArguments train;
  PrepareArguments prepare;
  PlanArguments plan;
  EvaluateArguments evaluate;
  PredictArguments predict;
  GenerateArguments generate;
  ExportArguments export_;
  TokenizeArguments tokenize;
  DownloadArguments download;
  CheckpointArguments checkpoint;
  StatusArguments status;
  ReportArguments report;
  TopArguments top;
  DoctorArguments doctor;
};

/// Throws: Error(kUsage) with the offending word, the nearest command or option, and how to list them all.
CommandLine parse_command_line(int argc, char** argv);

}  // namespace neoloom::launch
