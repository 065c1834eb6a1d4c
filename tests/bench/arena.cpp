#include "arena.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "enforce/cgroup.h"

namespace egressd::bench {
namespace {

namespace fs = std::filesystem;

std::atomic<bool> stop_requested{false};

}  // namespace

bool interrupted() { return stop_requested.load(); }

void watch_signals() {
  struct sigaction action{};
  action.sa_handler = [](int) { stop_requested = true; };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

Cpus choose_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof(set), &set);
  Cpus cpus{-1, -1};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    if (cpus.sender < 0)
      cpus.sender = cpu;
    else if (cpus.sink < 0)
      cpus.sink = cpu;
  }
  if (cpus.sink < 0) cpus.sink = cpus.sender;
  return cpus;
}

void pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  ::sched_setaffinity(0, sizeof(set), &set);
}

Result<void> write_file(const std::string& path, const std::string& text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return std::unexpected(Error::from_errno("open " + path));
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return std::unexpected(Error::from_errno("write '" + text + "' to " + path));
  return {};
}

Result<std::string> read_file(const std::string& path) {
  const std::ifstream file(path);
  if (!file) return std::unexpected(Error::from_errno("open " + path));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// ---- network namespaces

std::string Netns::path() const {
  return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_.get());
}

Result<void> Netns::inside(const std::function<Result<void>()>& work) const {
  const UniqueFd home(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!home) return std::unexpected(Error::from_errno("open /proc/thread-self/ns/net"));
  if (::setns(fd_.get(), CLONE_NEWNET) != 0)
    return std::unexpected(Error::from_errno("enter a network namespace"));
  auto result = work();
  if (::setns(home.get(), CLONE_NEWNET) != 0)
    return std::unexpected(Error::from_errno("leave a network namespace"));
  return result;
}

Result<void> Netns::ip(const std::string& lines) const {
  return inside([&]() -> Result<void> {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return std::unexpected(Error::from_errno("pipe"));
    UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, read_end.get(), STDIN_FILENO);
    std::string words[] = {"ip", "-batch", "-"};
    char* argv[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
    pid_t pid = 0;
    const int err = ::posix_spawnp(&pid, "ip", &actions, nullptr, argv, environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (err != 0) return std::unexpected(Error::from_errno("start ip", err));
    read_end.reset();
    const bool written =
        ::write(write_end.get(), lines.data(), lines.size()) == static_cast<ssize_t>(lines.size());
    write_end.reset();
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!written || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
      return std::unexpected(Error::of("ip -batch failed on:\n" + lines));
    return {};
  });
}

Result<Netns> Netns::create() {
  const UniqueFd home(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!home) return std::unexpected(Error::from_errno("open /proc/thread-self/ns/net"));
  if (::unshare(CLONE_NEWNET) != 0)
    return std::unexpected(Error::from_errno("make a network namespace"));
  UniqueFd fresh(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  // /proc/sys/net shows the namespace of whoever looks. No strict reverse path: the sink takes
  // packets for addresses it has no route back through, and accepts all of 10.0.0.0/8.
  for (const char* key : {"all", "default"})
    (void)write_file(std::string("/proc/sys/net/ipv4/conf/") + key + "/rp_filter", "0");
  (void)write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
  if (::setns(home.get(), CLONE_NEWNET) != 0)
    return std::unexpected(Error::from_errno("leave a network namespace"));
  if (!fresh) return std::unexpected(Error::of("open the new network namespace"));
  Netns netns(std::move(fresh));
  if (auto r = netns.ip("link set lo up\n"); !r) return std::unexpected(r.error());
  return netns;
}

// ---- what all variants share

Result<std::unique_ptr<Arena>> Arena::create() {
  std::unique_ptr<Arena> arena(new Arena());
  if (auto r = arena->open(); !r) return std::unexpected(r.error());
  return arena;
}

Result<void> Arena::open() {
  std::string dir = fs::temp_directory_path() / "egressd-bench.XXXXXX";
  if (::mkdtemp(dir.data()) == nullptr)
    return std::unexpected(Error::from_errno("make a temporary directory"));
  dir_ = dir;
  const std::string bpf = dir_ + "/bpf";
  ::mkdir(bpf.c_str(), 0700);
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return std::unexpected(Error::from_errno("make a mount namespace"));
  if (::mount("bpf", bpf.c_str(), "bpf", 0, nullptr) != 0)
    return std::unexpected(Error::from_errno("mount bpffs"));
  mounted_ = true;

  const auto mount = enforce::find_cgroup2_mount();
  if (!mount) return std::unexpected(mount.error());
  auto self = read_file("/proc/self/cgroup");
  if (!self) return std::unexpected(self.error());
  std::istringstream lines(*self);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("0::")) home_ = *mount + line.substr(3);

  cgroup_ = *mount + "/egressd-bench." + std::to_string(::getpid());
  if (::mkdir(cgroup_.c_str(), 0755) != 0) {
    auto error = Error::from_errno("make cgroup " + cgroup_);
    cgroup_.clear();
    return std::unexpected(std::move(error));
  }
  // The variants' cgroups are threaded: threads of one process can be in different ones, so that
  // going from one variant to the next neither moves a process nor changes its address space.
  if (auto r = write_file(cgroup_ + "/cgroup.procs", "0"); !r) return r;

  auto sink = Netns::create();
  if (!sink) return std::unexpected(sink.error());
  sink_ = std::make_unique<Netns>(std::move(*sink));
  return sink_->ip("route add local 10.0.0.0/8 dev lo\n");
}

Arena::~Arena() {
  sink_.reset();
  if (!cgroup_.empty()) {
    if (auto r = write_file(home_ + "/cgroup.procs", "0"); !r)
      std::fprintf(stderr, "%s\n", r.error().message.c_str());
    // A thread that has just ended is still counted for a moment.
    for (int i = 0; i < 100 && ::rmdir(cgroup_.c_str()) != 0 && errno == EBUSY; ++i)
      ::usleep(10000);
  }
  if (mounted_) ::umount2((dir_ + "/bpf").c_str(), MNT_DETACH);
  std::error_code ignored;
  if (!dir_.empty()) fs::remove_all(dir_, ignored);
}

// ---- one variant

Result<std::unique_ptr<Place>> Place::create(const Arena& arena, const std::string& name, int index,
                                             int cpu) {
  std::unique_ptr<Place> place(new Place());
  auto netns = Netns::create();
  if (!netns) return std::unexpected(netns.error());
  place->netns_ = std::make_unique<Netns>(std::move(*netns));

  const std::string net = "192.168." + std::to_string(index) + ".";
  const std::string link = "v" + std::to_string(index);
  const std::string near = "02:00:00:00:00:02";
  const std::string far = "02:00:00:00:00:01";
  auto r = arena.sink().ip(
      "link add " + link + " address " + far + " type veth peer name up0 address " + near +
      " netns " + place->netns_->path() + "\n" +  //
      "addr add " + net + "1/24 dev " + link +
      "\n"  //
      "link set " +
      link + " up\n" +  //
      "neigh add " + net + "2 lladdr " + near + " dev " + link + " nud permanent\n");
  if (!r) return std::unexpected(r.error());
  r = place->netns_->ip("addr add " + net + "2/24 dev up0\n" +  //
                        "link set up0 up\n" +                   //
                        "neigh add " + net + "1 lladdr " + far + " dev up0 nud permanent\n" +
                        "route add default via " + net + "1\n");
  if (!r) return std::unexpected(r.error());

  const std::string cgroup = arena.cgroup() + "/" + name;
  if (::mkdir(cgroup.c_str(), 0755) != 0)
    return std::unexpected(Error::from_errno("make cgroup " + cgroup));
  place->cgroup_ = cgroup;
  if (auto w = write_file(cgroup + "/cgroup.type", "threaded"); !w)
    return std::unexpected(w.error());

  std::unique_lock lock(place->mutex_);
  place->thread_ = std::thread([p = place.get(), cpu] { p->loop(cpu); });
  place->changed_.wait(lock, [&] { return place->started_; });
  lock.unlock();
  if (!place->ready_) return std::unexpected(place->ready_.error());
  return place;
}

void Place::loop(int cpu) {
  // "0" names the writing process' leader in some kernels; the thread's own id is never mistaken.
  ready_ = write_file(cgroup_ + "/cgroup.threads", std::to_string(::gettid()));
  if (ready_ && ::setns(netns_->fd(), CLONE_NEWNET) != 0)
    ready_ = std::unexpected(Error::from_errno("enter a network namespace"));
  pin_this_thread(cpu);

  std::unique_lock lock(mutex_);
  started_ = true;
  changed_.notify_all();
  while (true) {
    changed_.wait(lock, [&] { return stop_ || work_ != nullptr; });
    if (stop_) return;
    (*work_)();
    work_ = nullptr;
    changed_.notify_all();
  }
}

void Place::run(const std::function<void()>& work) {
  std::unique_lock lock(mutex_);
  work_ = &work;
  changed_.notify_all();
  changed_.wait(lock, [&] { return work_ == nullptr; });
}

Place::~Place() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  if (cgroup_.empty()) return;
  for (int i = 0; i < 100 && ::rmdir(cgroup_.c_str()) != 0 && errno == EBUSY; ++i) ::usleep(10000);
}

}  // namespace egressd::bench
