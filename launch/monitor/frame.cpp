// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/frame.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/monitor/device_rows.h"
#include "launch/monitor/sparkline.h"
#include "runtime/core/text.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

constexpr const char* kGreen = "\x1b[32m";
constexpr const char* kYellow = "\x1b[33m";
constexpr const char* kRed = "\x1b[31m";
constexpr const char* kCyan = "\x1b[36m";
constexpr const char* kGrey = "\x1b[90m";
constexpr const char* kPlain = "\x1b[0m";
constexpr size_t kLabelColumns = 9;
constexpr size_t kLongestPieceBytes = 4000;

struct Piece {
  std::string text;
  const char* colour = nullptr;  // nullptr: the terminal's own
};

/// A line; those of less worth go first when the frame is too high.
struct Line {
  int worth;
  std::vector<Piece> pieces;
};

const char* colour_of(const std::string& state) {
  if (state == kRunning.name || state == kFinished.name) return kGreen;
  return state == kFailed.name || state == kDead.name ? kRed : kYellow;
}

std::string ago(double seconds) { return metrics::duration_text(std::max(0.0, seconds)) + " ago"; }

// Returns text of a file as it may stand on a terminal's line.
std::string one_line(const std::string& text) {
  std::string line = core::printable(text, kLongestPieceBytes);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

class Drawing {
 public:
  Drawing(const RunHistory& history, const FrameContents& contents, const FrameStyle& style)
      : history_(history), contents_(contents), told_(contents.told), style_(style) {}

  std::vector<std::string> lines() {
    title();
    holder();
    blank();
    steps();
    loss();
    rate();
    evaluations();
    saved();
    warnings();
    labelled(6, "next", advice_text(told_));
    blank();
    const size_t footer = style_.footer.empty() ? 0 : 1;
    const ordered_json devices = devices_now();
    std::vector<std::string> table = table_for(devices, footer);
    std::vector<std::string> drawn;
    for (const Line& line : lines_) drawn.push_back(render(line.pieces));
    for (size_t i = 0; i < table.size(); ++i) drawn.push_back(render({{table[i], i == 0 ? kGrey : nullptr}}));
    if (footer > 0) {
      if (style_.rows > 0) drawn.resize(style_.rows - 1);
      drawn.push_back(render({{style_.footer, kGrey}}));
    }
    return drawn;
  }

 private:
  size_t room() const { return style_.columns > kLabelColumns ? style_.columns - kLabelColumns : 1; }

  void blank() { lines_.push_back({0, {}}); }

  void labelled(int worth, const std::string& label, std::vector<Piece> pieces) {
    pieces.insert(pieces.begin(), {metrics::pad_right(label, kLabelColumns), kGrey});
    lines_.push_back({worth, std::move(pieces)});
  }
  void labelled(int worth, const std::string& label, const std::string& text, const char* colour = nullptr) {
    if (!text.empty()) labelled(worth, label, std::vector<Piece>{{text, colour}});
  }

  void title() {
    const std::string state = text_of(told_, "state");
    std::string when;
    if (const double last = history_.last_seconds(); std::isfinite(last)) {
      const std::string age = ago(contents_.now_seconds - last);
      when = state == kRunning.name ? ", heard " + age : ", " + age;
    }
    const std::string right = state + when;
    const std::string label = "run ";
    const size_t most = style_.columns > right.size() + 2 ? style_.columns - right.size() - 2 : 0;
    // The end of a path names the run.
    const size_t left = most > label.size() ? most - label.size() : 0;
    const std::string run =
        metrics::cut_to_width(label + metrics::cut_front_to_width(one_line(text_of(told_, "run")), left), most);
    lines_.push_back({99, {{metrics::pad_right(run, most) + "  "}, {state, colour_of(state)}, {when, kGrey}}});
  }

  void holder() {
    std::string text = text_of(told_, "holder");
    if (const std::string job = text_of(told_, "slurm_job_id"); !job.empty() && text.find("Slurm job") == text.npos) {
      text += (text.empty() ? "" : ", ") + ("Slurm job " + job);
    }
    labelled(2, "job", text);
  }

  void steps() {
    labelled(10, "step", step_text(told_, room()));
    const double total = number_of(told_, "total_steps");
    if (!(total > 0)) return;
    const double share = std::clamp(number_of(told_, "step") / total, 0.0, 1.0);
    const auto filled = static_cast<size_t>(share * static_cast<double>(room()));
    labelled(5, "",
             {{metrics::repeated(style_.unicode ? "\u2501" : "#", filled), kGreen},
              {metrics::repeated(style_.unicode ? "\u2500" : "-", room() - filled), kGrey}});
  }

  void loss() {
    std::vector<double> values;
    double least = std::numeric_limits<double>::infinity();
    double greatest = -least;
    for (const MeanLoss& stretch : history_.record().losses.stretches()) values.push_back(stretch.mean());
    for (const TrainPoint& point : points_of(history_.record().train)) {
      if (!std::isfinite(point.loss)) continue;
      least = std::min(least, point.loss);
      greatest = std::max(greatest, point.loss);
    }
    if (values.empty()) return;
    constexpr size_t kNumberColumns = 9;
    const double last = last_of(history_.record().train).loss;
    const std::string now = metrics::pad_right(metrics::number_text(last), kNumberColumns) + " ";
    std::string range =
        least <= greatest ? fmt::format("  {} to {}", metrics::number_text(least), metrics::number_text(greatest)) : "";
    constexpr size_t kNarrowestLine = 20;
    if (now.size() + range.size() + kNarrowestLine > room()) range.clear();
    const size_t columns = room() > now.size() + range.size() ? room() - now.size() - range.size() : 1;
    labelled(9, "loss", {{now}, {sparkline(values, columns, style_.unicode), kCyan}, {range, kGrey}});
  }

  void rate() {
    if (history_.record().train.empty()) return;
    const TrainPoint& last = last_of(history_.record().train);
    std::string text = fmt::format("{:.2e}", last.learning_rate);
    if (!std::isnan(last.grad_norm)) text += ", gradient norm " + metrics::number_text(last.grad_norm);
    labelled(7, "lr", text);
  }

  // As many of an evaluation's values as fit, without counts and times.
  std::string values_of(const EvalPoint& point) const {
    std::string text = fmt::format("step {}:", point.step);
    bool first = true;
    for (const auto& [name, value] : point.values) {
      if (name == "samples" || name == "runtime" || name == "samples_per_second") continue;
      const std::string more = fmt::format("{} {} {}", first ? "" : ",", name, metrics::number_text(value));
      if (!first && metrics::display_width(text) + metrics::display_width(more) > room()) break;
      text += more;
      first = false;
    }
    return text;
  }

  void evaluations() {
    for (const ValidationRecord& set : history_.record().validation) {
      if (set.points.empty()) continue;
      const std::string prefix = set.name.empty() ? "" : set.name + ", ";
      labelled(set.name.empty() ? 8 : 6, "eval", prefix + values_of(set.points.back()));
    }
    if (const auto best = best_evaluation(history_.record(), contents_.config)) {
      labelled(7, "best",
               fmt::format("step {}: {} {}", best->step, best->metric.substr(5), metrics::number_text(best->value)));
    }
  }

  void saved() {
    const auto found = told_.find("checkpoint");
    if (found == told_.end()) return;
    std::string text = fmt::format("step {}", count_of(*found, "step"));
    if (std::isfinite(contents_.checkpoint_seconds))
      text += ", " + ago(contents_.now_seconds - contents_.checkpoint_seconds);
    labelled(7, "saved", text);
  }

  void warnings() {
    if (history_.end()) labelled(8, "reason", text_of(*history_.end(), "reason"));
    int64_t count = 0;
    const Moment* last = nullptr;
    for (const Moment& moment : history_.record().moments) {
      if (moment.kind != "warning") continue;
      ++count;
      last = &moment;
    }
    if (last != nullptr) labelled(6, "warnings", fmt::format("{}, the last: {}", count, last->text), kYellow);
  }

  ordered_json devices_now() const {
    if (!history_.train()) return nullptr;
    const auto found = history_.train()->find("devices");
    return found == history_.train()->end() ? ordered_json() : *found;
  }

  // Makes room: drops lines without worth first, then devices, then the line of the least worth.
  std::vector<std::string> table_for(const ordered_json& devices, size_t footer) {
    constexpr size_t kUnbounded = std::numeric_limits<size_t>::max();
    std::vector<std::string> whole = device_rows(devices, style_.columns, kUnbounded);
    if (style_.rows == 0) return whole;
    const size_t least = std::min<size_t>(whole.size(), 2);
    const auto fits = [&](size_t rows) { return lines_.size() + rows + footer <= style_.rows; };
    const auto drop_below = [&](int worth) {
      const auto last =
          std::find_if(lines_.rbegin(), lines_.rend(), [&](const Line& line) { return line.worth < worth; });
      if (last == lines_.rend()) return false;
      lines_.erase(std::next(last).base());
      return true;
    };
    while (!fits(whole.size()) && drop_below(1)) {
    }
    for (int worth = 1; !fits(least) && worth <= 99;) {
      if (!drop_below(worth)) ++worth;
    }
    const size_t taken = lines_.size() + footer;
    return device_rows(devices, style_.columns, style_.rows > taken ? style_.rows - taken : 0);
  }

  std::string render(const std::vector<Piece>& pieces) const {
    std::string line;
    size_t left = style_.columns;
    for (const Piece& piece : pieces) {
      const std::string text = metrics::cut_to_width(one_line(piece.text), left);
      left -= metrics::display_width(text);
      if (text.empty()) continue;
      line += style_.colours && piece.colour != nullptr ? piece.colour + text + kPlain : text;
    }
    return line;
  }

  const RunHistory& history_;
  const FrameContents& contents_;
  const ordered_json& told_;
  const FrameStyle& style_;
  std::vector<Line> lines_;
};

}  // namespace

std::vector<std::string> draw_frame(const RunHistory& history, const FrameContents& contents, const FrameStyle& style) {
  return Drawing(history, contents, style).lines();
}

}  // namespace neoloom::launch
