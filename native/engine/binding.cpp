// The engine for Python: NumPy arrays in and out, the interpreter's lock released, sequences spread over threads.
#include "binding.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "engine.h"

namespace nb = nanobind;

namespace qs5 {
namespace {

using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Records = nb::ndarray<int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Lengths = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Outputs = nb::ndarray<nb::numpy, int32_t>;

using SignalSpec = std::tuple<int32_t, int32_t, bool>; // channels, bits, signed
using OpSpec = std::tuple<int32_t, std::vector<int32_t>, SignalSpec, std::vector<int32_t>, std::vector<AnyArray>>;
using InputSpec = std::tuple<SignalSpec, std::vector<int64_t>, std::vector<int64_t>, int32_t>;

// A multiple of the rows of every tile of a product on AVX-512 (1, 4, 6, 8).
constexpr int64_t kBlockRows = 48;

struct FreeModel {
  void operator()(qs5_model *model) const { qs5_model_free(model); }
};
struct FreeWork {
  void operator()(qs5_work *work) const { qs5_work_free(work); }
};
using Work = std::unique_ptr<qs5_work, FreeWork>;

qs5_type type_of(nb::dlpack::dtype type) {
  if (type == nb::dtype<int8_t>()) return QS5_I8;
  if (type == nb::dtype<uint8_t>()) return QS5_U8;
  if (type == nb::dtype<int16_t>()) return QS5_I16;
  if (type == nb::dtype<uint16_t>()) return QS5_U16;
  if (type == nb::dtype<int32_t>()) return QS5_I32;
  throw nb::type_error("expected an array of int8, uint8, int16, uint16 or int32");
}

qs5_signal signal_of(const SignalSpec &s) { return {std::get<0>(s), std::get<1>(s), std::get<2>(s)}; }

qs5_op_spec op_of(const OpSpec &from) {
  const auto &[kind, reads, out, numbers, arrays] = from;
  if (reads.size() > QS5_MAX_READS || numbers.size() > QS5_MAX_NUMBERS || arrays.size() > QS5_MAX_ARRAYS)
    throw nb::value_error("an op with too many reads, numbers or arrays");
  qs5_op_spec op{};
  op.kind = static_cast<qs5_kind>(kind);
  std::fill(std::begin(op.reads), std::end(op.reads), -1);
  std::copy(reads.begin(), reads.end(), op.reads);
  std::copy(numbers.begin(), numbers.end(), op.numbers);
  op.out = signal_of(out);
  for (size_t i = 0; i < arrays.size(); ++i)
    op.arrays[i] = {arrays[i].data(), static_cast<int64_t>(arrays[i].size()), type_of(arrays[i].dtype())};
  return op;
}

// One call's arguments, checked.
struct Job {
  int64_t sequences, steps;
  const uint8_t *raw;
  qs5_type type;
  int64_t sample; // bytes of a step
  const int64_t *lengths;
  unsigned char *records;
  int32_t *outputs;
};

class Engine {
public:
  Engine(const InputSpec &input, const std::vector<OpSpec> &ops, const std::string &level, bool counting,
         bool fused, bool masked) {
    const auto &[signal, M, offset, shift] = input;
    if (M.size() != offset.size()) throw nb::value_error("expected as many offsets as multipliers");
    const qs5_input_spec in{signal_of(signal), static_cast<int32_t>(M.size()), M.data(), offset.data(), shift};
    std::vector<qs5_op_spec> specs;
    for (const OpSpec &op : ops) specs.push_back(op_of(op));
    char error[160] = "";
    model_.reset(qs5_model_new(&in, specs.data(), static_cast<int32_t>(specs.size()), level_of(level),
                               (counting ? QS5_COUNTING : 0) | (fused ? 0 : QS5_UNFUSED) | (masked ? QS5_MASKED : 0), error,
                               sizeof error));
    if (!model_) throw nb::value_error(error);
    counting_ = counting;
  }

  // Advances the sequences of `records` by raw (B, L, D); the outputs of every step of a model without a pool.
  std::optional<Outputs> run(const AnyArray &raw, const std::optional<Lengths> &lengths, Records records, int threads,
                             int64_t block, const std::optional<Counts> &counts) {
    Job job = checked(raw, lengths, records);
    check_counts(counts);
    if (block < 0 || block > (int64_t{1} << 20)) throw nb::value_error("expected a block of 1 to 2^20 steps");
    int64_t rows = block ? block : kBlockRows;
    if (qs5_is_bidirectional(model_.get())) rows = std::max(rows, job.steps);
    std::optional<Outputs> outputs;
    if (!qs5_has_pool(model_.get())) {
      outputs = array({job.sequences, job.steps, qs5_output_channels(model_.get())});
      job.outputs = outputs->data();
    }
    nb::gil_scoped_release release;
    spread(job, rows, std::max(1, threads), counts ? counts->data() : nullptr);
    return outputs;
  }

  // The pool and what follows it, for every record.
  Outputs answer(Records records, const std::optional<Counts> &counts) {
    if (!qs5_has_pool(model_.get())) throw nb::value_error("a model without a pool has no answer");
    check_records(records, static_cast<int64_t>(records.shape(0)));
    check_counts(counts);
    const size_t n = records.shape(0), words = record().bytes / sizeof(int64_t);
    for (size_t i = 0; i < n; ++i)
      if (records.data()[i * words + record().steps_at / sizeof(int64_t)] < 1)
        throw nb::value_error("expected at least one step before the answer");
    Outputs outputs = array({static_cast<int64_t>(n), qs5_output_channels(model_.get())});
    nb::gil_scoped_release release;
    Work work = take(kBlockRows);
    qs5_answer(model_.get(), work.get(), static_cast<int64_t>(n), bytes(records), outputs.data());
    give(std::move(work), kBlockRows, counts ? counts->data() : nullptr);
    return outputs;
  }

  // Bytes of a record; where total, last step and number of steps are; int16 of the states; channels of the pool.
  std::tuple<size_t, size_t, size_t, size_t, int32_t, int32_t> layout() const {
    const qs5_record r = record();
    return {r.bytes, r.total_at, r.last_at, r.steps_at, r.states, r.pooled};
  }

private:
  static qs5_level level_of(const std::string &name) {
    for (int level = 0; level < QS5_LEVELS; ++level)
      if (name == qs5_level_name(static_cast<qs5_level>(level))) return static_cast<qs5_level>(level);
    throw nb::value_error("an unknown instruction set");
  }

  static Outputs array(const std::vector<int64_t> &shape) {
    size_t count = 1;
    std::vector<size_t> sizes;
    for (int64_t n : shape) sizes.push_back(static_cast<size_t>(n)), count *= static_cast<size_t>(n);
    auto *data = new int32_t[count]();
    nb::capsule owner(data, [](void *p) noexcept { delete[] static_cast<int32_t *>(p); });
    return Outputs(data, sizes.size(), sizes.data(), owner);
  }

  static unsigned char *bytes(const Records &records) { return reinterpret_cast<unsigned char *>(records.data()); }

  qs5_record record() const { return qs5_record_layout(model_.get()); }

  void check_records(const Records &records, int64_t sequences) const {
    if (static_cast<int64_t>(records.shape(0)) != sequences || records.shape(1) * sizeof(int64_t) != record().bytes)
      throw nb::value_error("expected a record of the model's size for every sequence");
  }

  void check_counts(const std::optional<Counts> &counts) const {
    if (counts && (!counting_ || counts->shape(0) != static_cast<size_t>(qs5_signal_count(model_.get()))))
      throw nb::value_error("expected a counter for every signal of a model that counts");
  }

  Job checked(const AnyArray &raw, const std::optional<Lengths> &lengths, const Records &records) const {
    if (raw.ndim() != 3 || static_cast<int64_t>(raw.shape(2)) != qs5_input_channels(model_.get()))
      throw nb::value_error("expected raw samples (B, L, channels)");
    const auto sequences = static_cast<int64_t>(raw.shape(0)), steps = static_cast<int64_t>(raw.shape(1));
    check_records(records, sequences);
    if (lengths && static_cast<int64_t>(lengths->shape(0)) != sequences) throw nb::value_error("expected B lengths");
    for (int64_t i = 0; lengths && i < sequences; ++i)
      if (lengths->data()[i] < 0 || lengths->data()[i] > steps) throw nb::value_error("a length beyond the samples");
    const auto sample = static_cast<int64_t>(raw.itemsize() * raw.shape(2));
    return {sequences, steps, static_cast<const uint8_t *>(raw.data()), type_of(raw.dtype()), sample,
            lengths ? lengths->data() : nullptr, bytes(records), nullptr};
  }

  void part(const Job &job, int64_t begin, int64_t end, qs5_work *work) const {
    int32_t *outputs = job.outputs ? job.outputs + begin * job.steps * qs5_output_channels(model_.get()) : nullptr;
    qs5_run(model_.get(), work, end - begin, job.steps, job.raw + begin * job.steps * job.sample, job.type,
            job.lengths ? job.lengths + begin : nullptr,
            job.records + static_cast<size_t>(begin) * record().bytes, outputs);
  }

  // Each thread takes a run of sequences. All workspaces are there before the first thread starts.
  void spread(const Job &job, int64_t rows, int threads, int64_t *counts) {
    const int64_t n = std::clamp<int64_t>(threads, 1, std::max<int64_t>(job.sequences, 1));
    std::vector<Work> works;
    for (int64_t i = 0; i < n; ++i) works.push_back(take(rows));
    std::vector<std::thread> started;
    int64_t begin = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t end = job.sequences * (i + 1) / n;
      qs5_work *work = works[static_cast<size_t>(i)].get();
      if (i + 1 == n || !start(started, job, begin, end, work)) part(job, begin, end, work);
      begin = end;
    }
    for (std::thread &thread : started) thread.join();
    for (Work &work : works) give(std::move(work), rows, counts);
  }

  bool start(std::vector<std::thread> &started, const Job &job, int64_t begin, int64_t end, qs5_work *work) const {
    try {
      started.emplace_back([this, &job, begin, end, work] { part(job, begin, end, work); });
      return true;
    } catch (const std::system_error &) {
      return false; // no more threads: this one does it
    }
  }

  Work take(int64_t rows) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (rows == idle_rows_ && !idle_.empty()) {
        Work work = std::move(idle_.back());
        idle_.pop_back();
        return work;
      }
    }
    Work work(qs5_work_new(model_.get(), rows));
    if (!work) throw std::bad_alloc();
    return work;
  }

  // Keeps workspaces of one size, but not those of whole long sequences.
  void give(Work work, int64_t rows, int64_t *counts) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (counts) qs5_work_saturated(model_.get(), work.get(), counts);
    if (rows > 4 * kBlockRows) return;
    if (rows != idle_rows_) idle_.clear();
    idle_rows_ = rows;
    idle_.push_back(std::move(work));
  }

  std::unique_ptr<qs5_model, FreeModel> model_;
  std::mutex mutex_;
  std::vector<Work> idle_;
  int64_t idle_rows_ = 0;
  bool counting_ = false;
};

std::vector<std::string> levels() {
  std::vector<std::string> found;
  for (int level = 0; level < QS5_LEVELS; ++level)
    if (qs5_level_available(static_cast<qs5_level>(level))) found.emplace_back(qs5_level_name(static_cast<qs5_level>(level)));
  return found;
}

} // namespace

void bind_engine(nb::module_ &m) {
  nb::class_<Engine>(m, "Engine", "An integer model made ready to run; see qs5.backends.native.")
      .def(nb::init<const InputSpec &, const std::vector<OpSpec> &, const std::string &, bool, bool, bool>(),
           nb::arg("input"), nb::arg("ops"), nb::arg("level"), nb::arg("counting"), nb::arg("fused"),
           nb::arg("masked"))
      .def("run", &Engine::run, nb::arg("raw"), nb::arg("lengths").none(), nb::arg("records"), nb::arg("threads"),
           nb::arg("block"), nb::arg("counts").none())
      .def("answer", &Engine::answer, nb::arg("records"), nb::arg("counts").none())
      .def_prop_ro("layout", &Engine::layout);
  m.def("engine_levels", &levels, "The instruction sets that this processor and this build have, the best one last.");
}

} // namespace qs5
