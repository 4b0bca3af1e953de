# kvdesk_shim: a library of its own in the same folder as libllama, in the wheel and in whatever is made from it.
add_library(kvdesk_shim SHARED "${CMAKE_CURRENT_LIST_DIR}/kvdesk_shim.cpp")
target_compile_features(kvdesk_shim PRIVATE cxx_std_17)
target_include_directories(kvdesk_shim PRIVATE "${PROJECT_SOURCE_DIR}/src")    # llama-ext.h
target_link_libraries(kvdesk_shim PRIVATE llama)
set_target_properties(kvdesk_shim PROPERTIES
    BUILD_WITH_INSTALL_RPATH TRUE
    INSTALL_RPATH "$<IF:$<BOOL:${APPLE}>,@loader_path,$ORIGIN>")
install(TARGETS kvdesk_shim
    LIBRARY DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib"
    RUNTIME DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib"
    ARCHIVE DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/lib")
