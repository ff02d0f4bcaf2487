// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "runtime/checkpoint/disk_file.h"
#include "runtime/checkpoint/hash_file.h"
#include "runtime/checkpoint/state_file.h"
#include "runtime/checkpoint/trial.h"
#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/hash.h"
#include "runtime/hdf5/image.h"

namespace neoloom::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr auto kCheckpoint = core::ErrorKind::kCheckpoint;
constexpr size_t kStepDigits = 12;
constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kDataSuffix = ".h5";
constexpr std::string_view kHashSuffix = ".sha256";

// Returns the step of a name step-<12 digits><suffix>, or -1 for every other name.
int64_t step_of(std::string_view name, std::string_view suffix) {
  if (name.size() != kPrefix.size() + kStepDigits + suffix.size()) return -1;
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix)) return -1;
  const char* const digits = name.data() + kPrefix.size();
  int64_t step = -1;
  const auto [rest, problem] = std::from_chars(digits, digits + kStepDigits, step);
  return problem == std::errc() && rest == digits + kStepDigits && step >= 0 ? step : -1;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code problem;
  fs::directory_iterator entry(directory, problem);
  if (problem == std::errc::no_such_file_or_directory) return names;
  for (; !problem && entry != fs::directory_iterator(); entry.increment(problem)) {
    names.push_back(entry->path().filename().string());
  }
  core::require(!problem, kCheckpoint, "cannot read directory {}: {}", directory, problem.message());
  return names;
}

HashedFile write_image(const State& state, TemporaryFile& target) {
  constexpr size_t kStructureBytes = size_t{1} << 16;
  hdf5::ImageWriter writer(payload_bytes(state) + kStructureBytes, kCheckpoint);
  write_state(writer.file(), state);
  const hdf5::ImageBytes image = writer.finish();
  target.write(image.bytes());
  return {core::sha256_hex(image.bytes().data(), image.bytes().size()), image.bytes().size()};
}

// Lets HDF5 write into a mapped file whose disk space is already allocated: its library does not survive a full disk.
// The space is for the payload, the padding of each dataset's last chunk, and the structure.
HashedFile write_straight(const State& state, TemporaryFile& target) {
  constexpr uint64_t kSlackBytes = uint64_t{8} << 20;
  const uint64_t payload = payload_bytes(state);
  hdf5::ImageWriter writer(target.map(payload + payload / 64 + kSlackBytes), kCheckpoint);
  write_state(writer.file(), state);
  target.finish_mapping(writer.finish_in_place());
  return hash_file(target.path());
}

bool already_published(const std::string& path, const HashedFile& content) {
  std::error_code problem;
  if (!fs::exists(path, problem) || problem) return false;
  try {
    return read_hash(path) == content.sha256 && hash_file(path).sha256 == content.sha256;
  } catch (const core::Error&) {
    return false;  // damaged: publishing replaces it
  }
}

// Reads the file as the next reader will. Deletes a file that cannot be read back, so that nobody resumes from it.
void read_back(const std::string& path, const HashedFile& expected) {
  std::string reason;
  try {
    const std::string found = hash_file(path).sha256;
    if (found == expected.sha256) return;
    reason = fmt::format("reading it back gave SHA-256 {}, expected {}", found, expected.sha256);
  } catch (const core::Error& error) {
    reason = error.what();
  }
  ::unlink(path.c_str());
  ::unlink(hash_path(path).c_str());
  core::fail(kCheckpoint, "checkpoint {} failed the check after its write and was deleted: {}", path, reason);
}

void delete_file(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return;
  core::fail(kCheckpoint, "cannot delete {}: {}", path, std::strerror(errno));
}

State load_without_name(const std::string& path) {
  const std::string expected = read_hash(path);
  const FileBytes content = read_whole_file(path);
  require_hash(core::sha256_hex(content.data.get(), content.size), expected);
  const auto read = [&](Arrays arrays) {
    const hdf5::ImageReader image(content.bytes(), kCheckpoint);
    return read_state(image.file(), content.size, arrays);
  };
  // A correct hash does not mean that HDF5 survives the file: whoever changed the file may have written the hash, too.
  // So a child process reads it first.
  constexpr uint64_t kStructureBytes = uint64_t{512} << 20;
  const std::string failure = failure_in_trial([&] { read(Arrays::kRead); }, content.size + kStructureBytes);
  core::require(failure.empty(), kCheckpoint,
                "its hash is right, but the HDF5 library cannot read it (a test process {}): "
                "its structure was changed after it was written",
                failure);
  return read(Arrays::kKeep);
}

// Returns a text that changes whenever the file is written or replaced; empty when there is no file.
std::string file_version(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return "";
  return fmt::format("{}:{}:{}:{}.{:09}", path, status.st_ino, status.st_size, status.st_mtim.tv_sec,
                     status.st_mtim.tv_nsec);
}

}  // namespace

std::string file_name(int64_t step) { return fmt::format("{}{:012d}{}", kPrefix, step, kDataSuffix); }

std::vector<Entry> Directory::list() const {
  std::vector<Entry> entries;
  for (const std::string& name : names_in(path_)) {
    if (const int64_t step = step_of(name, kDataSuffix); step >= 0) entries.push_back({step, path_ + "/" + name});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.step < b.step; });
  return entries;
}

Published Directory::publish(const State& state) const {
  const double start = core::now_seconds();
  core::make_directories(path_, kCheckpoint);
  const std::string name = file_name(state.step);
  Published published{path_ + "/" + name, 0, 0.0};
  TemporaryFile data(path_, name);
  const bool in_memory = payload_bytes(state) <= largest_image_bytes_;
  const HashedFile content = in_memory ? write_image(state, data) : write_straight(state, data);
  if (!already_published(published.path, content)) {
    HashPublication hash(published.path, content.sha256);
    data.rename_to(published.path);
    hash.keep();
    core::sync_directory(path_, kCheckpoint);
    read_back(published.path, content);
  }
  verified_.insert(file_version(published.path));
  published.bytes = content.bytes;
  published.seconds = core::now_seconds() - start;
  return published;
}

bool Directory::verifies(const std::string& path) const {
  const std::string version = file_version(path);
  if (verified_.contains(version)) return true;
  try {
    require_hash(hash_file(path).sha256, read_hash(path));
  } catch (const core::Error&) {
    return false;
  }
  verified_.insert(version);
  return true;
}

std::vector<std::string> Directory::retain(int64_t keep, int64_t best_step) const {
  constexpr int64_t kFewest = 2;
  std::vector<std::string> deleted;
  if (keep <= 0) return deleted;
  const int64_t wanted = std::max(keep, kFewest);
  int64_t verified = 0;
  std::vector<Entry> entries = list();
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (verified < wanted) {
      verified += verifies(entry->path) ? 1 : 0;
    } else if (entry->step != best_step) {
      // The data go first: after a crash in between only a hash file is left, which no reader takes for a checkpoint.
      delete_file(entry->path);
      delete_file(hash_path(entry->path));
      deleted.push_back(entry->path);
    }
  }
  return deleted;
}

std::optional<Directory::Loaded> Directory::newest_valid(
    const std::function<void(const std::string&, const std::string&)>& on_bad) const {
  std::vector<Entry> entries = list();
  if (entries.empty()) return std::nullopt;
  std::string reasons;
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    try {
      State state = load_without_name(entry->path);
      core::require(state.step == entry->step, kCheckpoint, "it holds step {}, its name says {}", state.step,
                    entry->step);
      return Loaded{*entry, std::move(state)};
    } catch (const NewerFormat& error) {
      core::fail(kCheckpoint, "cannot resume from {}: {}", entry->path, error.what());
    } catch (const core::Error& error) {
      on_bad(entry->path, error.what());
      reasons += fmt::format("\n  {}: {}", entry->path, error.what());
    }
  }
  core::fail(kCheckpoint,
             "none of the {} checkpoints in {} is valid; starting over would lose the run. "
             "Restore one, use another output_dir, or move the folder away to start over:{}",
             entries.size(), path_, reasons);
}

void Directory::remove_leftovers() const {
  std::error_code ignored;
  if (!fs::is_directory(path_, ignored)) return;
  for (const std::string& name : names_in(path_)) {
    const int64_t step = step_of(name, kHashSuffix);
    const bool orphan = step >= 0 && !fs::exists(path_ + "/" + file_name(step), ignored);
    if (orphan || is_abandoned_temporary(name)) ::unlink((path_ + "/" + name).c_str());
  }
}

State load(const std::string& path) {
  try {
    return load_without_name(path);
  } catch (const core::Error& error) {
    core::fail(kCheckpoint, "checkpoint {} cannot be used: {}", path, error.what());
  }
}

std::string problem_with(const std::string& path) {
  try {
    load_without_name(path);
    return "";
  } catch (const core::Error& error) {
    return error.what();
  }
}

}  // namespace neoloom::checkpoint
