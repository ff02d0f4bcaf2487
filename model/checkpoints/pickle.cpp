// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/pickle.h"

#include <algorithm>
#include <deque>
#include <unordered_map>

#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::model {
namespace {

using core::ErrorKind;

constexpr size_t kMaxPickleBytes = size_t{4} << 20;
constexpr std::string_view kOrderedDict = "collections.OrderedDict";
constexpr std::string_view kRebuildTensor = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view kRebuildParameter = "torch._utils._rebuild_parameter";

/// Returns the dtype of torch's storage class of that name; empty: another name.
std::string_view storage_dtype(std::string_view name) {
  if (name == "torch.FloatStorage") return "F32";
  if (name == "torch.HalfStorage") return "F16";
  if (name == "torch.BFloat16Storage") return "BF16";
  if (name == "torch.DoubleStorage") return "F64";
  if (name == "torch.LongStorage") return "I64";
  if (name == "torch.IntStorage") return "I32";
  if (name == "torch.ShortStorage") return "I16";
  if (name == "torch.CharStorage") return "I8";
  if (name == "torch.ByteStorage") return "U8";
  if (name == "torch.BoolStorage") return "BOOL";
  return "";
}

/// Values refer to each other by index, so that no depth of nesting becomes a depth of calls.
using Index = uint32_t;

enum class Kind { kNone, kBool, kInteger, kFloat, kText, kCallable, kTuple, kList, kDict, kStorage, kTensor };

struct Value {
  Kind kind = Kind::kNone;
  int64_t integer = 0;       // also of a bool, and of the offset of a tensor
  std::string text;          // also the name of a callable, and the key of a storage, also of a tensor's
  std::vector<Index> items;  // keys and values of a dict alternate; shape and strides of a tensor
};

const char* kind_name(Kind kind) {
  constexpr const char* kNames[] = {"None",    "a bool", "an integer", "a float",   "a text",  "a function",
                                    "a tuple", "a list", "a dict",     "a storage", "a tensor"};
  return kNames[static_cast<size_t>(kind)];
}

/// The stack machine of pickle, without its ways to call anything.
class Machine {
 public:
  Machine(std::string_view bytes, size_t begin, const std::string& path) : bytes_(bytes), at_(begin), path_(path) {
    limit_ = begin + std::min(bytes.size() - begin, kMaxPickleBytes);
  }

  void run() {
    for (char operation = *take(1).data(); operation != '.'; operation = *take(1).data()) step(operation);
    require(!stack_.empty(), "it ends without a value");
  }
  Pickled result(PickleRoot root) const;

 private:
  [[noreturn]] void damaged(const std::string& rule) const {
    core::fail(ErrorKind::kWeights, "{}: damaged pickle at byte {}: {}", path_, at_, rule);
  }
  void require(bool condition, const char* rule) const {
    if (!condition) damaged(rule);
  }

  std::string_view take(size_t count) {
    require(count <= limit_ - at_, "it ends early, or has more than 4 MiB");
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  uint64_t number(size_t count) {
    uint64_t value = 0;
    const std::string_view bytes = take(count);
    for (size_t i = 0; i < count; ++i) value |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return value;
  }
  std::string line() {
    const size_t end = bytes_.substr(0, limit_).find('\n', at_);
    require(end != std::string_view::npos, "a name does not end");
    std::string text(bytes_.substr(at_, end - at_));
    at_ = end + 1;
    return text;
  }

  void push(Value value) {
    stack_.push_back(static_cast<Index>(values_.size()));
    values_.push_back(std::move(value));
  }
  void push_integer(int64_t value) { push({Kind::kInteger, value, {}, {}}); }
  Index pop() {
    require(stack_.size() > (marks_.empty() ? 0 : marks_.back()), "it takes a value from an empty stack");
    const Index top = stack_.back();
    stack_.pop_back();
    return top;
  }
  std::vector<Index> pop_to_mark() {
    require(!marks_.empty(), "it looks for a mark that is not there");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    marks_.pop_back();
    std::vector<Index> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    return items;
  }
  std::vector<Index> pop_many(size_t count) {
    std::vector<Index> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }
  /// Returns the value at the top, which must be of this kind.
  Value& top(Kind kind) {
    require(stack_.size() > (marks_.empty() ? 0 : marks_.back()), "it changes a value that is not there");
    Value& value = values_[stack_.back()];
    require(value.kind == kind, "it changes a value of another kind than the operation");
    return value;
  }
  const Value& expect(Index index, Kind kind) const {
    const Value& value = values_[index];
    if (value.kind != kind) damaged(fmt::format("expected {}, found {}", kind_name(kind), kind_name(value.kind)));
    return value;
  }

  void step(char operation);
  void push_long();
  void push_callable();
  void remember(uint64_t slot) {
    require(!stack_.empty(), "it remembers a value that is not there");
    memory_[slot] = stack_.back();
  }
  void recall(uint64_t slot) {
    const auto found = memory_.find(slot);
    require(found != memory_.end(), "it recalls a value that it never stored");
    stack_.push_back(found->second);
  }
  void extend(Kind kind, const std::vector<Index>& items) {
    Value& target = top(kind);
    require(kind != Kind::kDict || items.size() % 2 == 0, "a key has no value");
    target.items.insert(target.items.end(), items.begin(), items.end());
  }
  void build();
  void load_storage();
  void reduce();
  void rebuild_tensor(const std::vector<Index>& arguments);
  std::vector<int64_t> sizes(Index tuple) const;
  PickledTensor tensor(const Value& value) const;
  std::map<std::string, PickledTensor> state_dict(const Value& root) const;

  std::string_view bytes_;
  size_t at_;
  size_t limit_;
  const std::string& path_;
  std::deque<Value> values_;
  std::vector<Index> stack_;
  std::vector<size_t> marks_;  // sizes of the stack
  std::unordered_map<uint64_t, Index> memory_;
  std::map<std::string, PickledStorage> storages_;
};

// The operations that Python's pickle writes in protocol 2, for the kinds of values above (Lib/pickletools.py).
void Machine::step(char operation) {
  switch (operation) {
    case '\x80':
      return require(number(1) == 2, "its protocol is not 2, the one of torch.save");
    case '(':
      return marks_.push_back(stack_.size());
    case 'N':
      return push({});
    case '\x88':
      return push({Kind::kBool, 1, {}, {}});
    case '\x89':
      return push({Kind::kBool, 0, {}, {}});
    case 'K':
      return push_integer(static_cast<int64_t>(number(1)));
    case 'M':
      return push_integer(static_cast<int64_t>(number(2)));
    case 'J':
      return push_integer(static_cast<int32_t>(number(4)));
    case '\x8a':
      return push_long();
    case 'G':
      take(8);
      return push({Kind::kFloat, 0, {}, {}});
    case 'X':
      return push({Kind::kText, 0, std::string(take(number(4))), {}});
    case 'c':
      return push_callable();
    case ')':
      return push({Kind::kTuple, 0, {}, {}});
    case '\x85':
      return push({Kind::kTuple, 0, {}, pop_many(1)});
    case '\x86':
      return push({Kind::kTuple, 0, {}, pop_many(2)});
    case '\x87':
      return push({Kind::kTuple, 0, {}, pop_many(3)});
    case 't':
      return push({Kind::kTuple, 0, {}, pop_to_mark()});
    case ']':
      return push({Kind::kList, 0, {}, {}});
    case 'a':
      return extend(Kind::kList, pop_many(1));
    case 'e':
      return extend(Kind::kList, pop_to_mark());
    case '}':
      return push({Kind::kDict, 0, {}, {}});
    case 's':
      return extend(Kind::kDict, pop_many(2));
    case 'u':
      return extend(Kind::kDict, pop_to_mark());
    case 'q':
      return remember(number(1));
    case 'r':
      return remember(number(4));
    case 'h':
      return recall(number(1));
    case 'j':
      return recall(number(4));
    case 'Q':
      return load_storage();
    case 'R':
      return reduce();
    case 'b':
      return build();
    default:
      damaged(fmt::format("torch.save does not write the operation {:#04x} for a state dict",
                          static_cast<unsigned char>(operation)));
  }
}

void Machine::push_long() {
  const size_t count = number(1);
  require(count <= 8, "an integer has more than 64 bits");
  uint64_t value = number(count);
  const bool negative = count > 0 && count < 8 && (value >> (8 * count - 1)) != 0;
  if (negative) value |= ~uint64_t{0} << (8 * count);
  push_integer(static_cast<int64_t>(value));
}

void Machine::push_callable() {
  std::string name = line();
  name += '.';
  name += line();
  const bool known =
      name == kOrderedDict || name == kRebuildTensor || name == kRebuildParameter || !storage_dtype(name).empty();
  core::require(known, ErrorKind::kWeights,
                "{}: its pickle asks for {}. neoloom rebuilds the tensors of a state dict and runs nothing else of a "
                "file. If you trust the file, load it in Python and save the model with save_pretrained(FOLDER)",
                path_, core::quoted(name));
  push({Kind::kCallable, 0, std::move(name), {}});
}

/// An OrderedDict gets its attributes (_metadata of a state dict), which say nothing about the tensors.
void Machine::build() {
  pop();
  top(Kind::kDict);
}

/// ('storage', class, key, location, elements), in files before torch 1.6 with the view that is no longer used.
void Machine::load_storage() {
  const std::vector<Index> items = expect(pop(), Kind::kTuple).items;
  const bool old = items.size() == 6 && values_[items[5]].kind == Kind::kNone;
  require((items.size() == 5 || old) && expect(items[0], Kind::kText).text == "storage", "it names no storage");
  const std::string dtype(storage_dtype(expect(items[1], Kind::kCallable).text));
  require(!dtype.empty(), "the class of a storage is none");
  const std::string& key = expect(items[2], Kind::kText).text;
  const PickledStorage storage{dtype, expect(items[4], Kind::kInteger).integer};
  require(storage.elements >= 0, "a storage has a negative size");
  const PickledStorage& known = storages_.emplace(key, storage).first->second;
  require(known.dtype == dtype && known.elements == storage.elements, "one storage has two types or sizes");
  push({Kind::kStorage, 0, key, {}});
}

void Machine::reduce() {
  const std::vector<Index> arguments = expect(pop(), Kind::kTuple).items;
  const std::string& name = expect(pop(), Kind::kCallable).text;
  if (name == kRebuildTensor) return rebuild_tensor(arguments);
  if (name == kRebuildParameter) {
    require(arguments.size() == 3, "a parameter has other than 3 arguments");
    expect(arguments[0], Kind::kTensor);
    return stack_.push_back(arguments[0]);
  }
  require(name == kOrderedDict && arguments.empty(), "it calls a class that it should only name");
  push({Kind::kDict, 0, {}, {}});
}

/// (storage, offset, shape, strides, requires_grad, hooks), in newer files with metadata behind.
void Machine::rebuild_tensor(const std::vector<Index>& arguments) {
  require(arguments.size() == 6 || arguments.size() == 7, "a tensor has neither 6 nor 7 arguments");
  const std::string& key = expect(arguments[0], Kind::kStorage).text;
  const int64_t offset = expect(arguments[1], Kind::kInteger).integer;
  require(sizes(arguments[2]).size() == sizes(arguments[3]).size(), "shape and strides of a tensor differ in length");
  push({Kind::kTensor, offset, key, {arguments[2], arguments[3]}});
}

std::vector<int64_t> Machine::sizes(Index tuple) const {
  constexpr size_t kMaxDimensions = 64;  // as torch
  const std::vector<Index>& items = expect(tuple, Kind::kTuple).items;
  require(items.size() <= kMaxDimensions, "a tensor has more than 64 dimensions");
  std::vector<int64_t> result;
  for (const Index item : items) {
    result.push_back(expect(item, Kind::kInteger).integer);
    require(result.back() >= 0, "a size, offset or stride is negative");
  }
  return result;
}

PickledTensor Machine::tensor(const Value& value) const {
  require(value.integer >= 0, "a size, offset or stride is negative");
  return {value.text, value.integer, sizes(value.items[0]), sizes(value.items[1])};
}

std::map<std::string, PickledTensor> Machine::state_dict(const Value& root) const {
  std::map<std::string, PickledTensor> tensors;
  for (size_t i = 0; i < root.items.size(); i += 2) {
    const std::string& name = expect(root.items[i], Kind::kText).text;
    const Value& value = values_[root.items[i + 1]];
    core::require(
        value.kind == Kind::kTensor, ErrorKind::kWeights,
        "{}: expected a state dict, names with a tensor each; {} is {}. If this is a checkpoint of a training "
        "script, save the state dict in it alone",
        path_, core::quoted(name), kind_name(value.kind));
    core::require(tensors.emplace(name, tensor(value)).second, ErrorKind::kWeights, "{}: {} is stored twice", path_,
                  core::quoted(name));
  }
  return tensors;
}

Pickled Machine::result(PickleRoot root) const {
  Pickled pickled{at_, {}, storages_, {}};
  const Value& value = values_[stack_.back()];
  if (root == PickleRoot::kStateDict) {
    core::require(value.kind == Kind::kDict, ErrorKind::kWeights, "{}: expected a state dict, found {}", path_,
                  kind_name(value.kind));
    pickled.tensors = state_dict(value);
  }
  if (root == PickleRoot::kTexts) {
    for (const Index item : expect(stack_.back(), Kind::kList).items) {
      pickled.texts.push_back(expect(item, Kind::kText).text);
    }
  }
  return pickled;
}

}  // namespace

Pickled read_pickle(std::string_view bytes, size_t begin_byte, PickleRoot root, const std::string& path) {
  Machine machine(bytes, begin_byte, path);
  machine.run();
  return machine.result(root);
}

}  // namespace neoloom::model
