// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoints/hub_download.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>
#include <vector>

#include "model/checkpoints/blob_file.h"
#include "model/checkpoints/hub.h"
#include "model/checkpoints/hub_requests.h"
#include "model/checkpoints/weight_files.h"
#include "runtime/core/environment.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"

namespace neoloom::model {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr const char* kSmallFiles[] = {"config.json",
                                       "generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt"};

bool is_true(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text == "1" || text == "ON" || text == "YES" || text == "TRUE";
}

bool has(const fs::path& folder, const char* name) { return fs::exists(folder / name); }

bool is_complete(const fs::path& folder, HubFiles files) {
  const bool tokenizer = has(folder, "tokenizer.json") || (has(folder, "vocab.json") && has(folder, "merges.txt"));
  if (files == HubFiles::kTokenizer || !tokenizer) return tokenizer;
  return has(folder, "config.json") && has_all_weights(folder.string());
}

/// What the hub says about a revision.
struct Revision {
  std::string commit;
  std::set<std::string> files;
};

Revision read_revision(const HubModel& model, const HubRequests& hub) {
  const std::string where = fmt::format("{}: the description of {}", hub.endpoint(), model.name);
  const nlohmann::json info = core::parse_json(hub.revision_info(), where, ErrorKind::kWeights);
  Revision revision;
  const auto files = info.find("siblings");
  const bool known = info.is_object() && files != info.end() && files->is_array() && info.contains("sha");
  if (known && info["sha"].is_string()) revision.commit = info["sha"];
  const bool commit =
      revision.commit.size() == 40 && revision.commit.find_first_not_of("0123456789abcdef") == std::string::npos;
  core::require(commit, ErrorKind::kWeights, "{} names no commit and files: is HF_ENDPOINT a hub?", where);
  for (const nlohmann::json& file : *files) {
    const auto name = file.is_object() ? file.find("rfilename") : file.end();
    if (file.is_object() && name != file.end() && name->is_string()) revision.files.insert(*name);
  }
  return revision;
}

/// Brings files of one revision into the cache.
class Download {
 public:
  Download(const HubModel& model, const std::function<void(const std::string&)>& say)
      : model_(model), say_(say), hub_(model.name, model.revision, say), root_(hub_folder(model.name)) {}

  std::string run() {
    revision_ = read_revision(model_, hub_);
    snapshot_ = root_ / "snapshots" / revision_.commit;
    say_(fmt::format("downloading {} (revision {}, commit {}) from {} into {}", model_.name, model_.revision,
                     revision_.commit, hub_.endpoint(), root_.string()));
    for (const char* name : kSmallFiles) {
      if (revision_.files.contains(name)) fetch(name);
    }
    if (model_.files == HubFiles::kModel) fetch_weights();
    // Last, so that the name of the revision never leads to an unfinished snapshot.
    if (model_.revision != revision_.commit) {
      core::publish_file((root_ / "refs" / model_.revision).string(), revision_.commit, ErrorKind::kWeights);
    }
    return snapshot_.string();
  }

 private:
  void fetch_weights() {
    for (const WeightFormat& format : kWeightFormats) {
      if (revision_.files.contains(format.single_file)) return fetch(format.single_file);
      if (!revision_.files.contains(format.index_file)) continue;
      fetch(format.index_file);
      for (const std::string& shard : shard_names(snapshot_.string(), format)) fetch(shard);
      return;
    }
    core::fail(ErrorKind::kWeights,
               "model '{}' (commit {}) holds no weights that neoloom reads: expected {} or {}, "
               "single or in shards",
               model_.name, revision_.commit, kWeightFormats[0].single_file, kWeightFormats[1].single_file);
  }

  void fetch(const std::string& name) {
    const fs::path pointer = snapshot_ / name;
    if (fs::exists(pointer)) return;
    const HubFile file = hub_.file(revision_.commit, name);
    const fs::path lock = root_.parent_path() / ".locks" / root_.filename() / (file.etag + ".lock");
    const BlobFile blob((root_ / "blobs" / file.etag).string(), lock.string());
    blob.fetch(file, name, hub_, say_);
    blob.link(pointer.string());
  }

  const HubModel& model_;
  const std::function<void(const std::string&)>& say_;
  HubRequests hub_;
  fs::path root_;  // of the model in the cache
  fs::path snapshot_;
  Revision revision_;
};

}  // namespace

bool hub_is_offline() { return is_true(core::environment({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"})); }

bool is_on_disk(const HubModel& model) {
  if (fs::is_directory(model.name)) return true;
  const std::string folder = find_snapshot(model.name, model.revision);
  return !folder.empty() && is_complete(folder, model.files);
}

std::string download(const HubModel& model, const std::function<void(const std::string&)>& say) {
  require_revision(model.name, model.revision);
  core::require(
      !hub_is_offline(), ErrorKind::kWeights,
      "model '{}' (revision {}): HF_HUB_OFFLINE forbids the network; unset it, or run this where there is one",
      model.name, model.revision);
  return Download(model, say).run();
}

}  // namespace neoloom::model
