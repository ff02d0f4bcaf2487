// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace neoloom::data {

/// Returns the labels in the default order of class indices: ascending if all are integers, else by code point.
std::vector<std::string> sorted_labels(std::vector<std::string> labels);

/// Returns transformers' default names of `count` classes: LABEL_0, LABEL_1, ...
std::vector<std::string> default_label_names(int64_t count);

/// Maps the labels of a file to class indices.
///   with fixed names        labels are positions of names. "1.0" equals "1", and 1 matches the default name LABEL_1.
///   with num_labels only    labels are integers, which are the class indices.
///   with neither            labels are in the order of sorted_labels(), or of `preferred` if it has the same labels.
class Labels {
 public:
  struct Request {
    std::string path;  // for messages: all files
    std::optional<std::vector<std::string>> names;
    std::optional<int64_t> num_labels;
    std::vector<std::string> preferred = {};
    /// The user gave `names` as names of the class indices: if none of them is an integer, an integer label is a
    /// position among them.
    bool names_of_numbers = false;
  };
  /// Throws: Error(kUsage) when fixed names repeat, or their count is not num_labels.
  explicit Labels(Request request);

  /// Names the file of the labels that follow, for messages.
  void begin_file(const std::string& path) { file_ = path; }
  /// Returns a provisional number for the label, which Result::class_index translates.
  /// Throws: Error(kData) when it is outside fixed names, with the line, the label and the names.
  int64_t number_of(const std::string& label, int64_t line);

  struct Result {
    std::vector<std::string> names;    // by class index
    std::vector<int64_t> class_index;  // by number
  };
  /// Throws: Error(kData) when the labels found do not fit num_labels.
  Result finish() const;

 private:
  struct Place {
    std::string file;
    int64_t line = 0;
  };
  [[noreturn]] void fail_outside(const std::string& label, const Place& place, const std::string& known) const;
  Result number_integers(int64_t num_labels) const;
  std::optional<int64_t> find_fixed(const std::string& label) const;

  Request request_;
  bool positions_allowed_ = false;
  std::unordered_map<std::string, int64_t> by_whole_number_;  // integer fixed names such as 1 and 1.0, by their digits
  std::unordered_map<std::string, int64_t> numbers_;
  std::string file_;
  std::vector<std::string> found_;   // by number: labels in order of appearance
  std::vector<Place> first_places_;  // by number
};

}  // namespace neoloom::data
