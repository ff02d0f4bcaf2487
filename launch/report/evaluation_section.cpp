// SPDX-License-Identifier: Apache-2.0
#include "launch/report/evaluation_section.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/report/html.h"
#include "launch/report/mistakes.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

/// Metrics that share a chart, because they share a scale.
struct MetricChart {
  const char* title;
  std::vector<const char*> metrics;
};

std::vector<MetricChart> metric_charts() {
  return {{"Scores", {"accuracy", "majority_baseline", "macro_f1", "mcc", "roc_auc"}},
          {"Calibration error", {"expected_calibration_error"}},
          {"Token accuracy", {"token_accuracy"}},
          {"Perplexity", {"perplexity"}},
          {"Errors", {"mse", "mae"}},
          {"Correlation", {"pearson", "spearmanr"}}};
}

std::string charts_of(const RunRecord& run) {
  std::string html;
  for (const MetricChart& wanted : metric_charts()) {
    Chart chart{.title = wanted.title, .x_label = "step", .series = {}};
    for (const ValidationRecord& set : run.validation) {
      for (const char* metric : wanted.metrics) {
        const std::string name = set.name.empty() ? metric : set.name + ": " + metric;
        Series series = metric_series(set, metric, name);
        if (!series.x.empty()) chart.series.push_back(std::move(series));
      }
    }
    if (!chart.series.empty()) html += line_chart(chart);
  }
  return html.empty() ? "" : fmt::format("<div class=\"charts\">{}</div>\n", html);
}

/// Returns all values of all evaluations, a row for each metric.
std::string values_of(const ValidationRecord& set) {
  constexpr size_t kMostColumns = 20;
  const std::vector<size_t> shown = evenly(set.points.size(), kMostColumns);
  std::vector<std::string> columns = {"metric"};
  for (const size_t i : shown) columns.push_back(fmt::format("step {}", set.points[i].step));
  Table table(shown.size() < set.points.size()
                  ? fmt::format("{} of {} evaluations; metrics.jsonl has all", shown.size(), set.points.size())
                  : "",
              columns);
  for (const auto& last : set.points.back().values) {
    std::vector<std::string> cells = {last.first};
    for (const size_t i : shown) {
      const auto& values = set.points[i].values;
      const auto found =
          std::find_if(values.begin(), values.end(), [&](const auto& value) { return value.first == last.first; });
      cells.push_back(found == values.end() ? "–" : exact(found->second));
    }
    table.row(cells);
  }
  return details("All values", table.html());
}

std::string label_text(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string cell(const ordered_json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_number()) return "–";
  return found->is_number_integer() ? found->dump() : rounded(found->get<double>());
}

std::string class_table(const ordered_json& last) {
  if (!last.contains("per_class") || !last["per_class"].is_array()) return missing("There is no table of labels.");
  constexpr const char* kColumns[] = {"rows", "predicted", "precision", "recall", "f1", "roc_auc", "average_precision"};
  std::vector<std::string> names = {"label"};
  names.insert(names.end(), std::begin(kColumns), std::end(kColumns));
  Table table("Labels", names);
  for (const ordered_json& row : last["per_class"]) {
    if (!row.is_object() || !row.contains("label")) continue;
    std::vector<std::string> cells = {label_text(row["label"])};
    for (const char* column : kColumns) cells.push_back(cell(row, column));
    table.row(cells);
  }
  return table.html();
}

std::string confusion_matrix(const ordered_json& last) {
  if (!last.contains("confusion_matrix") || !last["confusion_matrix"].is_array() || !last.contains("labels")) {
    return missing(
        "There is no confusion matrix: it needs a task with one label a row, and eval events leave it out above 100 "
        "labels (neoloom evaluate writes it).");
  }
  std::vector<std::string> columns = {"true \\ predicted"};
  for (const ordered_json& label : last["labels"]) columns.push_back(label_text(label));
  Table table("Confusion matrix: rows are true labels, columns predicted ones, shades shares of the row", columns);
  size_t index = 0;
  for (const ordered_json& row : last["confusion_matrix"]) {
    std::vector<std::string> cells = {++index < columns.size() ? columns[index] : ""};
    std::vector<double> shades;
    double sum = 0.0;
    for (const ordered_json& count : row) sum += count.is_number() ? count.get<double>() : 0.0;
    for (const ordered_json& count : row) {
      cells.push_back(count.is_number() ? count.dump() : "–");
      shades.push_back(sum > 0 && count.is_number() ? count.get<double>() / sum : 0.0);
    }
    table.row(cells, shades);
  }
  return table.html();
}

std::string calibration(const ordered_json& last) {
  const auto found = last.find("calibration");
  if (found == last.end() || !found->is_array()) {
    return missing(
        "There is no calibration curve: these eval events have no eval_calibration, which neoloom 0.3 and "
        "later write.");
  }
  Series share{.name = "share that is right", .x = {}, .y = {}};
  for (const ordered_json& bin : *found) {
    share.x.push_back(number_of(bin, "confidence"));
    share.y.push_back(number_of(bin, "right"));
  }
  const Chart chart{.title = "Calibration",
                    .x_label = "mean probability of predictions",
                    .series = {share, {.name = "perfect", .x = {0.0, 1.0}, .y = {0.0, 1.0}}},
                    .integer_x = false,
                    .from_zero = true};
  return fmt::format("<div class=\"charts\">{}</div>\n", line_chart(chart));
}

/// Returns the most confident mistakes, of a classifier.
std::string mistakes_of(const RunRecord& run) {
  const bool classifies = std::any_of(run.validation.begin(), run.validation.end(), [](const ValidationRecord& set) {
    return set.last.is_object() && set.last.contains("confusion_matrix");
  });
  return classifies ? "<h3>Most confident mistakes</h3>\n" + mistakes_section(run) : "";
}

}  // namespace

Series metric_series(const ValidationRecord& set, const std::string& metric, const std::string& name) {
  Series series{.name = name, .x = {}, .y = {}};
  for (const EvalPoint& point : set.points) {
    for (const auto& [key, value] : point.values) {
      if (key != metric) continue;
      series.x.push_back(static_cast<double>(point.step));
      series.y.push_back(value);
    }
  }
  return series;
}

double last_value(const ValidationRecord& set, const std::string& metric) {
  const Series series = metric_series(set, metric, "");
  for (size_t i = series.y.size(); i-- > 0;) {
    if (std::isfinite(series.y[i])) return series.y[i];
  }
  return std::numeric_limits<double>::quiet_NaN();
}

std::string set_title(const ValidationRecord& set) { return set.name.empty() ? "eval" : "eval " + set.name; }

std::string evaluation_section(const RunRecord& run) {
  std::string html = charts_of(run);
  for (const ValidationRecord& set : run.validation) {
    if (set.points.empty()) continue;
    html += fmt::format("<h3>Last evaluation{}: step {}</h3>\n", set.name.empty() ? "" : " of " + escaped(set.name),
                        set.points.back().step);
    html += set.last.contains("labels") ? class_table(set.last) + confusion_matrix(set.last) + calibration(set.last)
                                        : missing(
                                              "The task does not classify, so there is no table of labels, no "
                                              "confusion matrix and no calibration curve.");
    html += values_of(set);
  }
  if (!html.empty()) return html + mistakes_of(run);
  return missing("There is no evaluation yet: trainer_config.eval_strategy is no, or none was due.");
}

}  // namespace neoloom::launch
