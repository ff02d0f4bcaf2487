// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace neoloom::launch {

/// A series of any length in bounded memory: at most kMost stretches of consecutive points. Up to kMost points, each is
/// a stretch of its own. Then two neighbours become one, again and again.
/// A Stretch begins as one point. `take(Stretch)` adds the one behind it. `forget_beyond(step)` forgets later points,
/// and returns whether none is left.
template <typename Stretch>
class Thinned {
 public:
  static constexpr size_t kMost = 2048;  // even

  void add(Stretch point) {
    if (!begins_stretch()) {
      stretches_.back().take(std::move(point));
      ++in_last_;
      return;
    }
    if (stretches_.size() == kMost) join_neighbours();
    stretches_.push_back(std::move(point));
    in_last_ = 1;
  }
  /// Whether the next point begins a stretch.
  bool begins_stretch() const { return stretches_.empty() || in_last_ >= points_each_; }

  /// A stretch on both sides of the step keeps what it can: its lost points are near those that replace them.
  void forget_beyond(int64_t step) {
    std::erase_if(stretches_, [step](Stretch& stretch) { return stretch.forget_beyond(step); });
    in_last_ = points_each_;
  }

  bool empty() const { return stretches_.empty(); }
  const std::vector<Stretch>& stretches() const { return stretches_; }

 private:
  void join_neighbours() {
    for (size_t i = 0; i < kMost; i += 2) {
      Stretch joined = std::move(stretches_[i]);
      joined.take(std::move(stretches_[i + 1]));
      stretches_[i / 2] = std::move(joined);
    }
    stretches_.erase(stretches_.begin() + kMost / 2, stretches_.end());
    points_each_ *= 2;
  }

  std::vector<Stretch> stretches_;
  int64_t points_each_ = 1;
  int64_t in_last_ = 0;  // points of the last stretch
};

/// A stretch of points with a `step`: the first, the last, and those where one of the members is least or greatest.
template <typename Point, auto... kMembers>
struct Extremes {
  std::vector<Point> points;

  void take(const Extremes& later) {
    points.insert(points.end(), later.points.begin(), later.points.end());
    uint64_t kept = 1 | uint64_t{1} << (points.size() - 1);
    ((kept |= extremes_of(kMembers)), ...);
    size_t count = 0;
    for (size_t i = 0; i < points.size(); ++i) {
      if ((kept >> i & 1) != 0) points[count++] = points[i];
    }
    points.resize(count);
  }
  bool forget_beyond(int64_t step) {
    std::erase_if(points, [step](const Point& point) { return static_cast<int64_t>(point.step) > step; });
    return points.empty();
  }

 private:
  static_assert(2 * (2 + 2 * sizeof...(kMembers)) <= 64, "take() marks points in 64 bits");

  template <typename Member>
  uint64_t extremes_of(Member member) const {
    size_t least = points.size(), greatest = points.size();
    for (size_t i = 0; i < points.size(); ++i) {
      if (!std::isfinite(static_cast<double>(points[i].*member))) continue;
      if (least == points.size()) least = greatest = i;
      if (points[i].*member < points[least].*member) least = i;
      if (points[i].*member > points[greatest].*member) greatest = i;
    }
    return least == points.size() ? 0 : uint64_t{1} << least | uint64_t{1} << greatest;
  }
};

/// The points of all stretches, in order.
template <typename Point, auto... kMembers>
std::vector<Point> points_of(const Thinned<Extremes<Point, kMembers...>>& series) {
  std::vector<Point> points;
  for (const auto& stretch : series.stretches())
    points.insert(points.end(), stretch.points.begin(), stretch.points.end());
  return points;
}

/// The last point. The series has one.
template <typename Point, auto... kMembers>
const Point& last_of(const Thinned<Extremes<Point, kMembers...>>& series) {
  return series.stretches().back().points.back();
}

}  // namespace neoloom::launch
