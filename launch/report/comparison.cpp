// SPDX-License-Identifier: Apache-2.0
#include "launch/report/comparison.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "launch/report/chart.h"
#include "launch/report/evaluation_section.h"
#include "launch/report/html.h"

namespace neoloom::launch {
namespace {

/// A value that a run ended with.
struct Outcome {
  std::string name;
  std::vector<double> values;  // by run; NaN: it has none
};

const ValidationRecord* set_of(const RunRecord& run, const std::string& name) {
  const auto found = std::find_if(run.validation.begin(), run.validation.end(),
                                  [&](const ValidationRecord& set) { return set.name == name; });
  return found == run.validation.end() ? nullptr : &*found;
}

/// Returns the names of all validation sets, in order, each with those of its metrics that a comparison shows.
std::vector<std::pair<std::string, std::string>> metrics_of(const std::vector<RunRecord>& runs) {
  constexpr const char* kNotCompared[] = {"samples", "runtime", "samples_per_second"};
  std::vector<std::pair<std::string, std::string>> names;
  for (const RunRecord& run : runs) {
    for (const ValidationRecord& set : run.validation) {
      if (set.points.empty()) continue;
      for (const auto& [metric, value] : set.points.back().values) {
        if (std::find(std::begin(kNotCompared), std::end(kNotCompared), metric) != std::end(kNotCompared)) continue;
        const std::pair<std::string, std::string> name(set.name, metric);
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
      }
    }
  }
  return names;
}

std::vector<Outcome> outcomes_of(const std::vector<RunRecord>& runs) {
  std::vector<Outcome> outcomes = {{"training loss", {}}};
  for (const RunRecord& run : runs)
    outcomes[0].values.push_back(run.train.empty() ? kUnknown : last_of(run.train).loss);
  for (const auto& [name, metric] : metrics_of(runs)) {
    Outcome outcome{fmt::format("eval_{}{}", name.empty() ? "" : name + "_", metric), {}};
    for (const RunRecord& run : runs) {
      const ValidationRecord* set = set_of(run, name);
      outcome.values.push_back(set == nullptr ? kUnknown : last_value(*set, metric));
    }
    outcomes.push_back(std::move(outcome));
  }
  outcomes.push_back({"tokens per second", {}});
  for (const RunRecord& run : runs) outcomes.back().values.push_back(number_of(run.end, "train_tokens_per_second"));
  return outcomes;
}

std::string runs_table(const std::vector<RunRecord>& runs) {
  Table table("", {"run", "state", "step", "seed", "folder"}, /*text=*/true);
  for (const RunRecord& run : runs) {
    const auto seed = run.config.find("trainer_config.seed");
    table.row({run.name, run.state(), fmt::format("{}", run.last_step()), seed == run.config.end() ? "–" : seed->second,
               run.folder});
  }
  return table.html();
}

std::string outcome_table(const std::vector<RunRecord>& runs, const std::vector<Outcome>& outcomes) {
  std::vector<std::string> columns = {"last value"};
  for (const RunRecord& run : runs) columns.push_back(run.name);
  Table table("", columns);
  for (const Outcome& outcome : outcomes) {
    std::vector<std::string> cells = {outcome.name};
    for (const double value : outcome.values) cells.push_back(six_digits(value));
    table.row(cells);
  }
  return table.html();
}

std::string differences(const std::vector<RunRecord>& runs) {
  std::set<std::string> keys;
  for (const RunRecord& run : runs) {
    if (run.config.empty()) return missing(fmt::format("{} has no config.yaml to compare.", run.folder));
    for (const auto& [key, value] : run.config) keys.insert(key);
  }
  std::vector<std::string> columns = {"key"};
  for (const RunRecord& run : runs) columns.push_back(run.name);
  Table table("", columns, /*text=*/true);
  for (const std::string& key : keys) {
    if (key == "trainer_config.output_dir") continue;
    std::vector<std::string> cells = {key};
    for (const RunRecord& run : runs) cells.push_back(run.config.contains(key) ? run.config.at(key) : "–");
    if (!std::equal(cells.begin() + 2, cells.end(), cells.begin() + 1)) table.row(cells);
  }
  return table.empty() ? "<p>The configurations are alike.</p>\n" : table.html();
}

std::string curves(const std::vector<RunRecord>& runs) {
  Chart loss{.title = "Training loss", .x_label = "step", .series = {}};
  for (const RunRecord& run : runs) {
    Series series{.name = run.name, .x = {}, .y = {}};
    for (const TrainPoint& point : points_of(run.train)) {
      series.x.push_back(static_cast<double>(point.step));
      series.y.push_back(point.loss);
    }
    loss.series.push_back(std::move(series));
  }
  std::string html = line_chart(loss);
  const std::set<std::string> drawn = {"loss",       "accuracy",       "macro_f1", "mcc",
                                       "perplexity", "token_accuracy", "mse",      "spearmanr"};
  for (const auto& [name, metric] : metrics_of(runs)) {
    if (!drawn.contains(metric)) continue;
    Chart chart{
        .title = fmt::format("eval_{}{}", name.empty() ? "" : name + "_", metric), .x_label = "step", .series = {}};
    for (const RunRecord& run : runs) {
      const ValidationRecord* set = set_of(run, name);
      chart.series.push_back(set == nullptr ? Series{.name = run.name, .x = {}, .y = {}}
                                            : metric_series(*set, metric, run.name));
    }
    html += line_chart(chart);
  }
  return fmt::format("<div class=\"charts\">{}</div>\n", html);
}

std::string over_seeds(const std::vector<RunRecord>& runs, const std::vector<Outcome>& outcomes) {
  std::string html;
  for (const std::vector<size_t>& group : groups_by_seed(runs)) {
    if (group.size() < 2) continue;
    std::vector<std::string> names;
    names.reserve(group.size());
    for (const size_t i : group) names.push_back(runs[i].name);
    Table table(fmt::format("{} runs: {}", group.size(), fmt::join(names, ", ")),
                {"last value", "mean", "standard deviation", "least", "greatest", "runs"});
    for (const Outcome& outcome : outcomes) {
      std::vector<double> values;
      values.reserve(group.size());
      for (const size_t i : group) values.push_back(outcome.values[i]);
      const Spread spread = spread_of(values);
      if (spread.count == 0) continue;
      table.row({outcome.name, six_digits(spread.mean), six_digits(spread.deviation), six_digits(spread.least),
                 six_digits(spread.greatest), fmt::format("{}", spread.count)});
    }
    html += table.html();
  }
  if (!html.empty()) return html;
  return missing(
      "No two of these runs differ only by trainer_config.seed. Keys that change no measured value do not count.");
}

}  // namespace

std::vector<std::vector<size_t>> groups_by_seed(const std::vector<RunRecord>& runs) {
  std::vector<std::vector<size_t>> groups;
  std::map<std::string, size_t> group_of;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string text = runs[i].config_without_seed();
    if (text.empty()) {
      groups.push_back({i});
      continue;
    }
    const auto [found, is_new] = group_of.try_emplace(text, groups.size());
    if (is_new) groups.emplace_back();
    groups[found->second].push_back(i);
  }
  return groups;
}

Spread spread_of(const std::vector<double>& values) {
  std::vector<double> known;
  std::copy_if(values.begin(), values.end(), std::back_inserter(known),
               [](double value) { return !std::isnan(value); });
  if (known.empty()) return {0, kUnknown, kUnknown, kUnknown, kUnknown};
  double sum = 0.0;
  for (const double value : known) sum += value;
  const auto count = static_cast<double>(known.size());
  const double mean = sum / count;
  double squares = 0.0;
  for (const double value : known) squares += (value - mean) * (value - mean);
  const auto [least, greatest] = std::minmax_element(known.begin(), known.end());
  return {known.size(), mean, known.size() < 2 ? kUnknown : std::sqrt(squares / (count - 1)), *least, *greatest};
}

std::string comparison_sections(const std::vector<RunRecord>& runs) {
  const std::vector<Outcome> outcomes = outcomes_of(runs);
  return section("runs", "Runs", runs_table(runs)) + section("outcomes", "Last values", outcome_table(runs, outcomes)) +
         section("seeds", "Mean and spread over seeds", over_seeds(runs, outcomes)) +
         section("differences", "Keys that differ", differences(runs)) + section("curves", "Curves", curves(runs));
}

}  // namespace neoloom::launch
