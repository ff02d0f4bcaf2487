// SPDX-License-Identifier: Apache-2.0
#include <iterator>
#include <nlohmann/json.hpp>

#include "launch/config/tree_builder.h"
#include "runtime/core/error.h"

namespace neoloom::launch {

using core::ErrorKind;

namespace {

/// Counts the lines that the parser has read. Its events carry no position, so it gets the text character by character.
struct Progress {
  size_t line = 1;
  bool at_line_end = false;  // the last character read was a newline: what was parsed lies before it
  size_t current_line() const { return at_line_end ? line - 1 : line; }
};

class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, Progress* progress) : at_(at), progress_(progress) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    progress_->at_line_end = *at_ == '\n';
    if (progress_->at_line_end) ++progress_->line;
    ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator old = *this;
    ++*this;
    return old;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  Progress* progress_;
};

/// Returns the parser's message without the string that it read last, which may be long, or a secret.
std::string without_text(std::string message) {
  const size_t begin = message.find("; last read: '");
  if (begin == std::string::npos || message.find('"', begin) == std::string::npos) return message;
  const size_t end = message.rfind('\'');
  return message.erase(begin, end + 1 - begin);
}

class Handler : public nlohmann::json_sax<nlohmann::json> {
 public:
  Handler(TreeBuilder& builder, const Progress& progress) : builder_(builder), progress_(progress) {}

  bool null() override { return scalar(resolve_plain("")); }
  bool boolean(bool value) override { return scalar(resolve_plain(value ? "true" : "false")); }
  bool number_integer(number_integer_t value) override { return scalar(resolve_plain(std::to_string(value))); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(resolve_plain(std::to_string(value))); }
  bool number_float(number_float_t, const string_t& written) override { return scalar(resolve_plain(written)); }
  bool string(string_t& value) override {
    Node node;
    node.kind = Node::Kind::kString;
    node.text = std::move(value);
    return scalar(std::move(node));
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return begin(Node::Kind::kMap); }
  bool key(string_t& value) override {
    builder_.key(value, progress_.current_line());
    return true;
  }
  bool end_object() override { return end(); }
  bool start_array(std::size_t) override { return begin(Node::Kind::kList); }
  bool end_array() override { return end(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& error) override {
    core::fail(ErrorKind::kUsage, "{}: not valid JSON (a document that starts with {{ or [ is read as JSON): {}",
               builder_.at(progress_.current_line()).text(), without_text(error.what()));
  }

 private:
  bool scalar(Node node) {
    builder_.scalar(std::move(node), progress_.current_line());
    return true;
  }
  bool begin(Node::Kind kind) {
    builder_.begin(kind, progress_.current_line());
    return true;
  }
  bool end() {
    builder_.end();
    return true;
  }

  TreeBuilder& builder_;
  const Progress& progress_;
};

}  // namespace

void read_json(const std::string& text, TreeBuilder& builder) {
  Progress progress;
  Handler handler(builder, progress);
  const CountingIterator begin(text.data(), &progress);
  const CountingIterator end(text.data() + text.size(), &progress);
  nlohmann::json::sax_parse(begin, end, &handler);
}

}  // namespace neoloom::launch
