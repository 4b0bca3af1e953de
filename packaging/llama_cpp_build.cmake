# Included after every project() of llama-cpp-python's build (CMAKE_PROJECT_INCLUDE); builds what kvdesk uses, faster.
if(PROJECT_NAME STREQUAL "llama.cpp")
    set(LLAMA_BUILD_COMMON OFF)     # helpers of llama.cpp's own command-line tools: no Python binding needs them
    set(CMAKE_UNITY_BUILD ON)       # 150 small files with the same heavy headers: a third of the compile time
    set(CMAKE_UNITY_BUILD_BATCH_SIZE 16)
    # our few lines of C over llama.cpp's C++, beside its libraries; its targets exist at the end of this folder
    set(KVDESK_SHIM "${CMAKE_CURRENT_LIST_DIR}/llama_shim/shim.cmake")
    cmake_language(DEFER CALL include "${KVDESK_SHIM}")
elseif(PROJECT_NAME STREQUAL "ggml")
    set(CMAKE_UNITY_BUILD OFF)      # the CPU kernels' macros collide when compiled as one unit
endif()
