# kvdesk: `make run` and `make test` are all that is needed on a fresh machine (Python 3.11+, gcc, cmake).
# More llama.cpp backends: CMAKE_ARGS="-DGGML_CUDA=on" make setup
.PHONY: setup run test lint tour bench package package-test dist lock clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
LLAMA_CMAKE := -DGGML_RPC=ON -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/packaging/llama_cpp_build.cmake
TEST_ARGS ?=

setup: $(VENV)/.app-installed

$(VENV)/.created:
	$(PYTHON) packaging/check_machine.py
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The source archive stays in .wheels (tests read templates, vocabularies and llama.cpp's own tests out of it), and
# llama.cpp is compiled from it once. pip would reuse any cached wheel of the same version, built with other options,
# hence --no-cache-dir and a folder of our own.
.wheels/.downloaded: requirements/llama.txt | $(VENV)/.created
	rm -rf .wheels && mkdir -p .wheels
	$(PIP) download --no-cache-dir --no-deps --require-hashes --no-binary llama-cpp-python -d .wheels -r requirements/llama.txt
	@touch $@

.wheels/.built: .wheels/.downloaded packaging/llama_cpp_build.cmake $(wildcard packaging/llama_shim/*) | $(VENV)/.created
	@echo "Compiling llama.cpp with its RPC backend (4 to 8 minutes, once) ..."
	rm -f .wheels/*.whl
	CMAKE_ARGS="$(LLAMA_CMAKE) $(CMAKE_ARGS)" $(PIP) wheel --no-cache-dir --no-deps -w .wheels .wheels/llama_cpp_python-*.tar.gz
	@touch $@

$(VENV)/.app-installed: requirements/app.txt pyproject.toml .wheels/.built | $(VENV)/.created
	$(PIP) install --require-hashes -r requirements/app.txt
	$(PIP) install --no-deps --no-index --force-reinstall .wheels/llama_cpp_python-*.whl
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.dev-installed: requirements/dev.txt $(VENV)/.app-installed
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

run: setup
	@$(BIN)/python tools/run.py $(MODEL)

test: $(VENV)/.dev-installed
	$(BIN)/python -m pytest $(TEST_ARGS)

lint: $(VENV)/.dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

tour: $(VENV)/.dev-installed
	$(BIN)/python tools/tour.py

bench: $(VENV)/.dev-installed
	$(BIN)/python tests/bench/run.py

# The packages, in build/package (docs/RELEASE.md): the app as a folder that needs no Python, a .deb, and an archive that
# installs itself. Built in an environment of its own, with a llama.cpp for every PC (kept in build/llama).
# MODEL=file.gguf asks the result a question. STARTER=1 puts the starter model in (read its terms first).
# VULKAN_SDK=folder adds the Vulkan backend.
PACKAGE_VENV := build/package-venv
PACKAGE_PYTHON := $(PACKAGE_VENV)/bin/python
PACKAGE_PIP := $(PACKAGE_PYTHON) -m pip --disable-pip-version-check -q
$(PACKAGE_VENV)/.installed: requirements/app.txt requirements/packaging.txt
	rm -rf $(PACKAGE_VENV) && $(PYTHON) -m venv $(PACKAGE_VENV)
	$(PACKAGE_PIP) install --require-hashes -r requirements/app.txt
	$(PACKAGE_PIP) install --require-hashes -r requirements/packaging.txt
	@touch $@

package: $(PACKAGE_VENV)/.installed .wheels/.downloaded
	wheel=$$($(PACKAGE_PYTHON) packaging/build_llama.py --source .wheels/llama_cpp_python-*.tar.gz $(if $(VULKAN_SDK),--vulkan-sdk $(VULKAN_SDK))) \
		&& $(PACKAGE_PIP) install --no-deps --no-index --force-reinstall "$$wheel"
	$(PACKAGE_PYTHON) packaging/build_app.py --llama-source .wheels/llama_cpp_python-*.tar.gz $(if $(STARTER),--with-starter)
	$(PACKAGE_PYTHON) packaging/build_linux_packages.py
	$(PYTHON) packaging/check_bundle.py build/package/kvdesk/kvdesk $(MODEL)

# The engine's tests on the packages' llama.cpp instead of the native one.
package-test: $(VENV)/.dev-installed
	LLAMA_CPP_LIB_PATH=$(CURDIR)/build/package/kvdesk/_internal/llama_cpp/lib $(BIN)/python -m pytest \
		tests/engine/test_backends.py tests/engine/test_engine.py tests/engine/test_plan_exact.py tests/engine/test_dry_run.py $(TEST_ARGS)

# What `pip install kvdesk` would get, in dist/.
dist: $(PACKAGE_VENV)/.installed
	rm -rf dist && $(PACKAGE_PYTHON) -m build --outdir dist .
	$(PACKAGE_PYTHON) -m twine check --strict dist/*

# Needs the tool uv; hashes only, no addresses.
LOCK := uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11
lock:
	$(LOCK) --extra starter --no-emit-package llama-cpp-python pyproject.toml -o requirements/app.txt
	$(LOCK) --extra starter --group dev --no-emit-package llama-cpp-python pyproject.toml -o requirements/dev.txt
	$(LOCK) --group packaging -o requirements/packaging.txt
	echo "llama-cpp-python==0.3.36" | $(LOCK) --no-deps - -o requirements/llama.txt

clean:
	rm -rf $(VENV) .wheels build dist screenshots
