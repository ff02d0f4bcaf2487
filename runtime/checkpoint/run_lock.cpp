// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/run_lock.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <mutex>
#include <optional>
#include <random>
#include <sstream>
#include <thread>

#include "runtime/core/clock.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/proc.h"
#include "runtime/core/process.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::checkpoint {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;

constexpr int kUsageCode = static_cast<int>(ErrorKind::kUsage);
constexpr size_t kLargestLockBytes = 4096;
constexpr double kPollSeconds = 0.1;

// Returns the start time of a process in clock ticks since boot; empty when there is no such process or only a zombie.
std::string start_of(int64_t process) {
  const std::optional<core::ProcessStat> stat = core::process_stat(process);
  return !stat || stat->state == 'Z' || stat->state == 'X' ? "" : std::to_string(stat->start_ticks);
}

std::string process_namespace() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/ns/pid", ignored).string();
}

std::string random_token() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

// Holds what run.lock says, one member a line.
struct Holder {
  std::string host, boot, space, start, since, job, token;
  int64_t process = 0;
  int restarts = 0;
  int64_t beats = 0;

  // `beats` stands last and has a fixed width, so each heartbeat can overwrite the file in place.
  std::string text() const {
    return fmt::format(
        "host {}\npid {}\npid_start {}\nboot_id {}\npid_namespace {}\nsince {}\nslurm_job {}\nslurm_restarts {}\n"
        "token {}\nbeats {:012}\n",
        host, process, start, boot, space, since, job, restarts, token, beats);
  }

  static Holder from(const std::string& text) {
    Holder holder;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      const size_t blank = line.find(' ');
      if (blank == std::string::npos) continue;
      const std::string key = line.substr(0, blank), value = line.substr(blank + 1);
      if (key == "host") holder.host = value;
      if (key == "pid") holder.process = std::atoll(value.c_str());
      if (key == "pid_start") holder.start = value;
      if (key == "boot_id") holder.boot = value;
      if (key == "pid_namespace") holder.space = value;
      if (key == "since") holder.since = value;
      if (key == "slurm_job") holder.job = value;
      if (key == "slurm_restarts") holder.restarts = std::atoi(value.c_str());
      if (key == "token") holder.token = value;
      if (key == "beats") holder.beats = std::atoll(value.c_str());
    }
    return holder;
  }

  static Holder of_this_process(const RunLock::Options& options) {
    Holder holder;
    holder.host = core::host_name();
    holder.process = ::getpid();
    holder.start = start_of(::getpid());
    holder.boot = core::first_line("/proc/sys/kernel/random/boot_id");
    holder.space = process_namespace();
    holder.since = fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(std::time(nullptr)));
    holder.job = options.slurm_job;
    holder.restarts = options.slurm_restarts;
    holder.token = random_token();
    return holder;
  }

  std::string name() const {
    if (host.empty()) return "a job that is just starting";
    return fmt::format("process {} on {}{}, since {}", process, host, job.empty() ? "" : ", Slurm job " + job, since);
  }
};

// Returns the text of the file, "" when it cannot be read, nullopt when there is no file.
std::optional<std::string> read_lock(const std::string& path) {
  const core::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return errno == ENOENT ? std::nullopt : std::optional<std::string>("");
  std::string text(kLargestLockBytes, '\0');
  const ssize_t count = ::pread(file.get(), text.data(), text.size(), 0);
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return text;
}

// Creates the file. Returns false when it exists already.
bool create_lock(const std::string& path, const std::string& text) {
  core::UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.valid() && errno == EEXIST) return false;
  const int problem = !file.valid() ? errno : core::write_fully(file.get(), text.data(), text.size());
  if (problem == 0) return true;
  if (file.valid()) ::unlink(path.c_str());
  core::fail(ErrorKind::kUsage, "cannot write {}, which keeps other jobs out of the run folder: {}", path,
             std::strerror(problem));
}

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

enum class Verdict { kLives, kGone, kUnknown };

Verdict judge(const Holder& holder, const Holder& mine) {
  if (!holder.job.empty() && holder.job == mine.job && holder.restarts < mine.restarts) return Verdict::kGone;
  if (holder.boot.empty() || holder.boot != mine.boot || holder.space != mine.space) return Verdict::kUnknown;
  return start_of(holder.process) == holder.start ? Verdict::kLives : Verdict::kGone;
}

// Keeps two jobs that start on one host from taking over a lock at the same moment, by flock() on the run folder. Where
// the file system has no flock() nothing is lost: the slower job finds the other's name in the file at its first
// heartbeat.
class OneAtATime {
 public:
  OneAtATime(const std::string& folder, double patience_seconds)
      : folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    const double deadline = core::now_seconds() + patience_seconds;
    while (folder_.valid() && ::flock(folder_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK || core::now_seconds() > deadline) return;
      sleep_seconds(kPollSeconds);
    }
  }

 private:
  core::UniqueFd folder_;  // closing it unlocks
};

// Throws unless `folder` is a folder or can become one.
void require_usable_folder(const std::string& folder) {
  core::require(!folder.empty(), ErrorKind::kUsage,
                "trainer_config.output_dir is empty: name the folder that the run writes into");
  std::error_code ignored;
  const fs::file_status link = fs::symlink_status(folder, ignored);
  const fs::file_status status = fs::status(folder, ignored);
  if (fs::is_symlink(link) && !fs::exists(status)) {
    core::fail(ErrorKind::kUsage, "trainer_config.output_dir: {} is a link to {}, which does not exist", folder,
               fs::read_symlink(folder, ignored).string());
  }
  core::require(!fs::exists(status) || fs::is_directory(status), ErrorKind::kUsage,
                "trainer_config.output_dir: {} is a file, expected a folder", folder);
}

}  // namespace

struct RunLock::State {
  std::string folder, path;
  Options options;
  Holder mine;
  bool made_folder = false;
  std::mutex mutex;
  std::condition_variable changed;
  bool ending = false;
  std::thread thread;

  void say(const std::string& text) const {
    if (options.say) options.say(text);
  }

  [[noreturn]] void refuse(const Holder& holder) const {
    core::fail(ErrorKind::kUsage,
               "{} is in use by another training job: {}. One job at a time writes into a run folder: "
               "wait until it has ended, stop it, or choose another trainer_config.output_dir",
               folder, holder.name());
  }

  // Returns whether the file still says the same after stale_seconds.
  bool stands_still(const std::string& text) const {
    say(fmt::format("{} is locked by {}; waiting up to {:.0f} s for a heartbeat", folder, Holder::from(text).name(),
                    options.stale_seconds));
    const double deadline = core::now_seconds() + options.stale_seconds;
    while (core::now_seconds() < deadline) {
      sleep_seconds(std::min(kPollSeconds, options.stale_seconds));
      if (read_lock(path) != text) return false;
    }
    return true;
  }

  void take_over(const Holder& holder) const {
    core::publish_file(path, mine.text(), ErrorKind::kUsage);
    say(fmt::format("{}: took over the lock of {}", folder, holder.name()));
  }

  void acquire() {
    const OneAtATime alone(folder, options.stale_seconds);
    while (!create_lock(path, mine.text())) {
      const std::optional<std::string> text = read_lock(path);
      if (!text) continue;  // its job ended just now
      const Holder holder = Holder::from(*text);
      Verdict verdict = judge(holder, mine);
      if (verdict == Verdict::kUnknown) {
        if (stands_still(*text)) {
          verdict = Verdict::kGone;
        } else if (const auto now = read_lock(path); !now) {
          continue;
        } else {
          refuse(Holder::from(*now));
        }
      }
      if (verdict == Verdict::kLives) refuse(holder);
      if (read_lock(path) != *text) continue;
      take_over(holder);
      return;
    }
  }

  // Writes the next heartbeat. Returns "" while the lock is ours, else who holds it. Puts back a lock file that
  // somebody deleted.
  std::string raise_count() {
    const std::optional<std::string> text = read_lock(path);
    if (!text) {
      std::error_code ignored;
      if (fs::is_directory(folder, ignored)) {
        try {
          create_lock(path, mine.text());
        } catch (const core::Error&) {  // e.g. a full disk: the next heartbeat tries again
        }
      }
      return "";
    }
    const Holder holder = Holder::from(*text);
    if (!holder.token.empty() && holder.token != mine.token) return holder.name();
    ++mine.beats;
    const std::string now = mine.text();
    const core::UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (file.valid()) [[maybe_unused]]
      const ssize_t ignored = ::pwrite(file.get(), now.data(), now.size(), 0);
    return "";
  }

  void lose(const std::string& holder) const {
    const std::string text = fmt::format(
        "{} now belongs to another training job: {}. This one wrote no heartbeat for too long, "
        "or Slurm has started it again elsewhere; it ends without writing more",
        folder, holder);
    if (options.on_lost) return options.on_lost(text);
    // Ends the process without destructors, as the watchdog does: other threads may hold locks that these would wait
    // for.
    const std::string line = "neoloom: error: " + text + "\n";
    [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, line.data(), line.size());
    ::_exit(kUsageCode);
  }

  void keep() {
    std::unique_lock lock(mutex);
    while (
        !changed.wait_for(lock, std::chrono::duration<double>(options.heartbeat_seconds), [this] { return ending; })) {
      if (const std::string holder = raise_count(); !holder.empty()) return lose(holder);
    }
  }
};

RunLock::RunLock(const std::string& folder, Options options) : state_(std::make_unique<State>()) {
  require_usable_folder(folder);
  state_->folder = folder;
  state_->path = folder + "/run.lock";
  state_->mine = Holder::of_this_process(options);
  state_->options = std::move(options);
  state_->made_folder = !fs::exists(folder);
  core::make_directories(folder, ErrorKind::kUsage);
  state_->acquire();
  state_->thread = std::thread([state = state_.get()] { state->keep(); });
}

RunLock::~RunLock() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
  const std::optional<std::string> text = read_lock(state_->path);
  if (text && Holder::from(*text).token == state_->mine.token) ::unlink(state_->path.c_str());
  if (state_->made_folder) ::rmdir(state_->folder.c_str());  // works on an empty folder only
}

LockReport look_at_lock(const std::string& folder, double watch_seconds) {
  const std::string path = folder + "/run.lock";
  const std::optional<std::string> text = read_lock(path);
  if (!text) return {};
  const Holder holder = Holder::from(*text);
  const Verdict verdict = judge(holder, Holder::of_this_process({}));
  LockReport report{holder.name(), verdict == Verdict::kLives, verdict == Verdict::kUnknown ? *text : ""};
  const double deadline = core::now_seconds() + watch_seconds;
  while (verdict == Verdict::kUnknown && !report.lives && core::now_seconds() < deadline) {
    sleep_seconds(kPollSeconds);
    const std::optional<std::string> now = read_lock(path);
    if (!now) return {};
    report.lives = *now != *text;
  }
  return report;
}

}  // namespace neoloom::checkpoint
