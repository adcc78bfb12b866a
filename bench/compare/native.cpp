// The limit of the machine, in C++ of our own writing: a two-atomics ping-pong and an honest single-producer
// single-consumer ring (cursors padded to 128 bytes, cached opposite cursor, acquire/release, 64-byte slots, every byte
// written and summed; published every 32 records, freed once per run of available records: the faster way on every machine
// tried). Each line on standard input runs one sample; the answer is "<ns per operation> <1 if checked>".
//   native spsc <records> <slots>      native pingpong <round trips>
// The second thread lives for the whole run and sleeps on a condition variable between samples.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>
#ifdef __linux__
#include <pthread.h>
#endif

// Caller on core 0 and partner on core 1, as the JavaScript pairs; where that fails the threads float.
static void pin(int core) {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
#else
  (void)core;
#endif
}

struct Slot { uint64_t word[8]; };

struct Ring {
  explicit Ring(size_t slots) : mask(slots - 1), data(slots) {}
  alignas(128) std::atomic<size_t> tail{0};
  alignas(128) size_t cachedHead{0};
  alignas(128) std::atomic<size_t> head{0};
  alignas(128) size_t cachedTail{0};
  alignas(128) const size_t mask;
  std::vector<Slot> data;
};

static double nowNs() {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Starts the partner for one sample and waits for its end.
struct Gate {
  std::mutex mutex;
  std::condition_variable condition;
  int64_t round = 0;
  bool stop = false;
  void open() { { std::lock_guard<std::mutex> lock(mutex); round++; } condition.notify_all(); }
  void end() { { std::lock_guard<std::mutex> lock(mutex); stop = true; } condition.notify_all(); }
  bool await(int64_t &seen) {
    std::unique_lock<std::mutex> lock(mutex);
    condition.wait(lock, [&] { return stop || round != seen; });
    seen = round;
    return !stop;
  }
};

static int spsc(size_t records, size_t slots) {
  Ring ring(slots);
  Gate gate;
  alignas(128) std::atomic<int> started{0};
  alignas(128) std::atomic<int> done{0};
  uint64_t sum = 0;
  std::thread consumer([&] {
    pin(1);
    int64_t seen = 0;
    while (gate.await(seen)) {
      started.store(1);
      uint64_t total = 0;
      size_t head = ring.head.load(std::memory_order_relaxed);
      for (size_t i = 0; i < records; i++) {
        while (head == ring.cachedTail) ring.cachedTail = ring.tail.load(std::memory_order_acquire);
        const Slot &slot = ring.data[head & ring.mask];
        for (int word = 0; word < 8; word++) total += slot.word[word];
        ++head; if (head == ring.cachedTail) ring.head.store(head, std::memory_order_release);
      }
      sum = total;
      done.store(1, std::memory_order_release);
    }
  });
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    started.store(0); done.store(0); gate.open();
    while (!started.load()) {}
    size_t tail = ring.tail.load(std::memory_order_relaxed);
    double start = nowNs();
    for (size_t i = 0; i < records; i++) {
      while (tail - ring.cachedHead > ring.mask) ring.cachedHead = ring.head.load(std::memory_order_acquire);
      Slot &slot = ring.data[tail & ring.mask];
      for (int word = 0; word < 8; word++) slot.word[word] = i + word;
      ++tail; if ((i & 31) == 31 || i + 1 == records) ring.tail.store(tail, std::memory_order_release);
    }
    while (!done.load(std::memory_order_acquire)) {}
    double elapsed = nowNs() - start;
    uint64_t wanted = 8 * (uint64_t(records) * (records - 1) / 2) + 28 * uint64_t(records);
    printf("%.3f %d\n", elapsed / records, sum == wanted ? 1 : 0);
    fflush(stdout);
  }
  gate.end();
  consumer.join();
  return 0;
}

static int pingpong(size_t trips) {
  alignas(128) static std::atomic<uint32_t> ping{0};
  alignas(128) static std::atomic<uint32_t> pong{0};
  Gate gate;
  std::thread partner([&] {
    pin(1);
    int64_t seen = 0;
    uint32_t next = 1;
    while (gate.await(seen)) {
      for (size_t i = 0; i < trips; i++, next++) {
        while (ping.load(std::memory_order_acquire) != next) {}
        pong.store(next, std::memory_order_release);
      }
    }
  });
  char line[64];
  uint32_t next = 1;
  while (fgets(line, sizeof line, stdin)) {
    gate.open();
    ping.store(next, std::memory_order_release); // the first trip waits for the partner to start and is not timed
    while (pong.load(std::memory_order_acquire) != next) {}
    next++;
    double start = nowNs();
    for (size_t i = 1; i < trips; i++, next++) {
      ping.store(next, std::memory_order_release);
      while (pong.load(std::memory_order_acquire) != next) {}
    }
    double elapsed = nowNs() - start;
    printf("%.3f %d\n", elapsed / (trips - 1), pong.load() == next - 1 ? 1 : 0);
    fflush(stdout);
  }
  gate.end();
  partner.join();
  return 0;
}

int main(int argc, char **argv) {
  pin(0);
  if (argc == 4 && !strcmp(argv[1], "spsc")) return spsc(strtoull(argv[2], nullptr, 10), strtoull(argv[3], nullptr, 10));
  if (argc == 3 && !strcmp(argv[1], "pingpong")) return pingpong(strtoull(argv[2], nullptr, 10));
  fprintf(stderr, "usage: native spsc RECORDS SLOTS | native pingpong TRIPS\n");
  return 2;
}
