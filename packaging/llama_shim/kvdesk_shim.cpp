// What kvdesk needs of llama.cpp and its C API does not give: the memory breakdown and the place of every weight, which
// llama.cpp returns as C++ containers, and an abort callback that costs no interpreter lock. Plain C at the outside.
//
// Built with llama.cpp (../llama_cpp_build.cmake) against its headers and put beside libllama, so that both always have
// the same layout of everything. Read by kvdesk/backend/llama/shim.py; a change of a signature changes KVDESK_SHIM_ABI.

#include "llama.h"
#include "llama-ext.h"
#include "ggml.h"
#include "ggml-backend.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#ifdef _WIN32
#    define KVDESK_API extern "C" __declspec(dllexport)
#else
#    define KVDESK_API extern "C" __attribute__((visibility("default")))
#endif

// llama-model.h declares it among much that only llama.cpp itself compiles with
const std::vector<std::pair<std::string, ggml_tensor *>> & llama_internal_get_tensor_map(const llama_model * model);

static const int32_t KVDESK_SHIM_ABI = 1;

// Bytes that one buffer type holds.
struct kvdesk_share {
    ggml_backend_buffer_type_t buffer_type;
    uint64_t                   model_bytes;
    uint64_t                   context_bytes;
    uint64_t                   compute_bytes;
};

// One weight. `address` is where its data begins, 0 where the host has no address for it or nothing is allocated (a
// planned model). A tied embedding that is needed on two devices occurs twice.
struct kvdesk_weight {
    const char *               name;
    ggml_backend_buffer_type_t buffer_type;
    uint64_t                   size_bytes;
    uint64_t                   address;
};

KVDESK_API int32_t kvdesk_shim_abi() {
    return KVDESK_SHIM_ABI;
}

// Fills `shares` with at most `room` entries and returns how many there are; -1 when llama.cpp throws.
KVDESK_API int32_t kvdesk_memory_breakdown(const llama_context * ctx, kvdesk_share * shares, int32_t room) {
    try {
        int32_t n = 0;
        for (const auto & [buffer_type, bytes] : llama_get_memory_breakdown(ctx)) {
            if (n < room) {
                shares[n] = { buffer_type, bytes.model, bytes.context, bytes.compute };
            }
            n++;
        }
        return n;
    } catch (const std::exception &) {
        return -1;
    }
}

// Fills `weights` with at most `room` entries and returns how many there are. The names live as long as the model.
KVDESK_API int32_t kvdesk_weights(const llama_model * model, kvdesk_weight * weights, int32_t room) {
    int32_t n = 0;
    for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
        if (n < room) {
            const bool on_host = tensor->buffer && ggml_backend_buffer_is_host(tensor->buffer);
            weights[n]         = {
                name.c_str(),
                tensor->buffer ? ggml_backend_buffer_get_type(tensor->buffer) : nullptr,
                ggml_nbytes(tensor),
                on_host ? (uint64_t) (uintptr_t) tensor->data : 0,
            };
        }
        n++;
    }
    return n;
}

// An abort callback (ggml_abort_callback) whose user data is a kvdesk_flag; polled for every node of a graph.
static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "the flag is one plain int for its owner");

KVDESK_API bool kvdesk_is_set(void * flag) {
    return static_cast<std::atomic<int32_t> *>(flag)->load(std::memory_order_relaxed) != 0;
}

KVDESK_API void kvdesk_set(void * flag, int32_t value) {
    static_cast<std::atomic<int32_t> *>(flag)->store(value, std::memory_order_relaxed);
}
