// SPDX-License-Identifier: Apache-2.0
// Drives the data room from pytest in bulk. Records are a uint32 count of bytes or ids, then the text or int32 ids.
//   data_probe encode FOLDER [--split-special]            stdin: records of text; stdout: records of ids
//   data_probe decode FOLDER [--skip-special]             stdin: records of ids; stdout: records of text
//   data_probe words                                      stdin: records of text; stdout: records of words' sizes
//   data_probe info FOLDER                                vocab size, eos, pad, content hash, notes, one a line
//   data_probe permutation N SEED                         prints the seeded permutation
//   data_probe store FOLDER INPUT OUTPUT [KEY=VALUE]...   builds a token store; keys: see set_option
#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "data/batching/step_list.h"
#include "data/token_store.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/word_splitter.h"
#include "runtime/core/error.h"

namespace {

using neoloom::data::Tokenizer;

std::string read_stdin() {
  std::string input;
  char buffer[1 << 16];
  for (size_t got; (got = fread(buffer, 1, sizeof buffer, stdin)) > 0;) input.append(buffer, got);
  return input;
}

template <typename T>
void write_record(const T* items, size_t count) {
  const auto size = static_cast<uint32_t>(count);
  fwrite(&size, sizeof size, 1, stdout);
  fwrite(items, sizeof(T), count, stdout);
}

/// Calls `each(begin, count)` for every (uint32 count, items) record.
template <typename T, typename Each>
void for_records(const std::string& input, Each each) {
  for (size_t at = 0; at + sizeof(uint32_t) <= input.size();) {
    uint32_t count = 0;
    std::memcpy(&count, input.data() + at, sizeof count);
    at += sizeof count;
    std::vector<T> items(count);
    std::memcpy(items.data(), input.data() + at, count * sizeof(T));
    at += count * sizeof(T);
    each(items);
  }
}

int encode(const Tokenizer& tokenizer, const std::string& flag) {
  for_records<char>(read_stdin(), [&](const std::vector<char>& text) {
    const std::string_view view{text.data(), text.size()};
    const auto ids =
        flag == "--as-input" ? tokenizer.encode_input(view) : tokenizer.encode(view, flag == "--split-special");
    write_record(ids.data(), ids.size());
  });
  return 0;
}

int decode(const Tokenizer& tokenizer, bool skip_special) {
  for_records<int32_t>(read_stdin(), [&](const std::vector<int32_t>& ids) {
    const std::string text = tokenizer.decode(ids, skip_special);
    write_record(text.data(), text.size());
  });
  return 0;
}

int words() {
  const neoloom::data::WordSplitter splitter;
  neoloom::data::WordSplitter::Scanner scanner(splitter);
  for_records<char>(read_stdin(), [&](const std::vector<char>& text) {
    std::vector<int32_t> sizes;
    for (size_t at = 0; at < text.size(); at += static_cast<size_t>(sizes.back())) {
      sizes.push_back(static_cast<int32_t>(scanner.word_bytes({text.data(), text.size()}, at)));
    }
    write_record(sizes.data(), sizes.size());
  });
  return 0;
}

int info(const Tokenizer& tokenizer) {
  fmt::print("{}\n{}\n{}\n{}\n", tokenizer.vocab_size(), tokenizer.eos_token_id(), tokenizer.pad_token_id(),
             tokenizer.content_hash());
  for (const std::string& note : tokenizer.notes()) fmt::print("{}\n", note);
  return 0;
}

int permutation(int64_t n, uint64_t seed) {
  for (const int64_t index : neoloom::data::seeded_permutation(n, seed)) fmt::print("{}\n", index);
  return 0;
}

void set_option(neoloom::data::StoreRequest& request, const std::string& key, const std::string& value) {
  namespace data = neoloom::data;
  auto& options = request.options;
  if (key == "task") {
    request.task = value == "causal" ? data::Task::kCausalLm : data::Task::kSingleLabel;
  } else if (key == "max_length") {
    request.max_length_tokens = std::stoll(value);
  } else if (key == "header") {
    options.header = value == "true";
  } else if (key == "quoting") {
    options.quoting = value == "true";
  } else if (key == "delimiter") {
    options.delimiter = value;
  } else if (key == "encoding") {
    options.encoding = value;
  } else if (key == "text") {
    options.text_column = value;
  } else if (key == "label") {
    options.label_column = value;
  } else if (key == "labels") {
    options.labels_column = value;
    request.task = data::Task::kMultiLabel;
  } else if (key == "prompt") {
    options.prompt_column = value;
  } else if (key == "response") {
    options.response_column = value;
  } else if (key == "pair") {
    options.text_pair_column = value;
  } else if (key == "messages") {
    options.messages_column = value;
  } else if (key == "template") {
    options.prompt_template = value;
  } else if (key == "loss_on_prompt") {
    request.loss_on_prompt = value == "true";
  } else if (key == "side") {
    request.tokenizer_options.truncation_side = value;
  } else if (key == "stride") {
    request.tokenizer_options.return_overflowing_tokens = true;
    request.tokenizer_options.stride = std::stoll(value);
  } else {
    neoloom::core::fail(neoloom::core::ErrorKind::kUsage, "data_probe store: no key \"{}\"", key);
  }
}

int store(const std::vector<std::string>& args) {
  neoloom::data::StoreRequest request;
  request.files = args[2];
  for (size_t i = 4; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    set_option(request, args[i].substr(0, equals), args[i].substr(equals + 1));
  }
  neoloom::data::TokenStore::build(request, Tokenizer::from_folder(args[1]), args[3]);
  fmt::print("{}\n", neoloom::data::TokenStore::open(args[3])->size());
  return 0;
}

int run(const std::vector<std::string>& args) {
  const bool has_flag = args.size() > 2 && args.back().starts_with("--");
  if (args.size() >= 2 && args[0] == "encode") return encode(Tokenizer::from_folder(args[1]), args.back());
  if (args.size() >= 2 && args[0] == "decode") return decode(Tokenizer::from_folder(args[1]), has_flag);
  if (args.size() == 1 && args[0] == "words") return words();
  if (args.size() == 2 && args[0] == "info") return info(Tokenizer::from_folder(args[1]));
  if (args.size() == 3 && args[0] == "permutation") return permutation(std::stoll(args[1]), std::stoull(args[2]));
  if (args.size() >= 4 && args[0] == "store") return store(args);
  fmt::print(stderr, "usage: data_probe encode|decode|words|info|permutation|store ...\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const neoloom::core::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return error.exit_code();
  }
}
