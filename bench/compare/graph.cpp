// PageRank over a compressed sparse row graph, plainly, in C++ of our own writing: the limit of one thread of the machine.
//   graph pull|push <file> <damping> <iterations>
// File, little-endian: u64 vertices, u64 edges, f64 expected[vertices], u32 degrees[vertices] (edges that leave), u32 offsets[vertices + 1],
// u32 ends[edges]. For pull, offsets and ends are by target (where edges come from); for push by source (where they lead to).
// Each line on standard input runs one sample, from equal ranks; the answer is "<ns per edge and iteration> <1 if the ranks are those
// expected, within a relative 1e-9>".
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Graph {
  uint64_t vertices = 0, edges = 0;
  std::vector<double> expected;
  std::vector<uint32_t> degrees, offsets, ends;
};

template <typename T>
static bool readInto(FILE *file, std::vector<T> &values, size_t count) {
  values.resize(count);
  return std::fread(values.data(), sizeof(T), count, file) == count;
}

static bool load(const char *path, Graph &graph) {
  FILE *file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  bool ok = std::fread(&graph.vertices, 8, 1, file) == 1 && std::fread(&graph.edges, 8, 1, file) == 1 &&
            readInto(file, graph.expected, graph.vertices) && readInto(file, graph.degrees, graph.vertices) &&
            readInto(file, graph.offsets, graph.vertices + 1) && readInto(file, graph.ends, graph.edges);
  std::fclose(file);
  return ok;
}

// One iteration; `share` is what each vertex gives along each of its edges.
static void pull(const Graph &graph, const std::vector<double> &share, std::vector<double> &next, double base, double damping) {
  const uint32_t *offsets = graph.offsets.data(), *ends = graph.ends.data();
  for (uint64_t v = 0; v < graph.vertices; v++) {
    double sum = 0;
    for (uint32_t e = offsets[v]; e < offsets[v + 1]; e++) sum += share[ends[e]];
    next[v] = base + damping * sum;
  }
}

static void push(const Graph &graph, const std::vector<double> &share, std::vector<double> &next, double base, double damping) {
  const uint32_t *offsets = graph.offsets.data(), *ends = graph.ends.data();
  for (uint64_t v = 0; v < graph.vertices; v++) next[v] = base;
  for (uint64_t v = 0; v < graph.vertices; v++) {
    const double give = damping * share[v];
    for (uint32_t e = offsets[v]; e < offsets[v + 1]; e++) next[ends[e]] += give;
  }
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  const bool isPull = std::strcmp(argv[1], "pull") == 0;
  const double damping = std::atof(argv[3]);
  const int iterations = std::atoi(argv[4]);
  Graph graph;
  if (!load(argv[2], graph)) return 3;
  const uint64_t n = graph.vertices;
  std::vector<double> rank(n), next(n), share(n);
  char line[64];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    const auto start = std::chrono::steady_clock::now();
    for (uint64_t v = 0; v < n; v++) rank[v] = 1.0 / n;
    for (int i = 0; i < iterations; i++) {
      double dangling = 0;
      for (uint64_t v = 0; v < n; v++) {
        if (graph.degrees[v] == 0) dangling += rank[v];
        share[v] = graph.degrees[v] == 0 ? 0 : rank[v] / graph.degrees[v];
      }
      const double base = (1 - damping) / n + damping * dangling / n;
      if (isPull) pull(graph, share, next, base, damping);
      else push(graph, share, next, base, damping);
      rank.swap(next);
    }
    const double ns = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
    bool ok = true;
    for (uint64_t v = 0; v < n; v++) ok = ok && std::fabs(rank[v] - graph.expected[v]) <= 1e-9 * graph.expected[v];
    std::printf("%.6f %d\n", ns / (double(graph.edges) * iterations), ok ? 1 : 0);
    std::fflush(stdout);
  }
  return 0;
}
