-- A database of schema 1, as the release that brought it wrote it. Never changed: migrations must read it for good.
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE conversations (
        id TEXT PRIMARY KEY NOT NULL,
        title TEXT NOT NULL,
        created_s REAL NOT NULL,
        updated_s REAL NOT NULL,
        deleted_s REAL,
        system_prompt TEXT NOT NULL,
        sampling TEXT NOT NULL,
        engine_settings TEXT,
        overflow TEXT NOT NULL,
        active_leaf_id TEXT REFERENCES messages(id) DEFERRABLE INITIALLY DEFERRED,
        model_path TEXT
    ) STRICT;
INSERT INTO "conversations" VALUES('c1','Sky',1.0,4.0,NULL,'Be brief.','{"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0, "repeat_last_n": 64, "seed": -1, "max_tokens": 1024}','{"model": {"n_gpu_layers": -1, "use_mmap": true, "use_extra_bufts": true, "rpc_servers": []}, "context": {"n_ctx": 4096, "type_k": "f16", "type_v": "f16", "flash_attn": "auto", "n_batch": 2048, "n_ubatch": 512, "swa_full": false, "n_seq_max": 1, "n_threads": 0, "allocation": "grow", "initial_ctx": 2048}}','rolling','m3','/models/gemma.gguf');
INSERT INTO "conversations" VALUES('c2','Deleted',1.0,1.0,5.0,'','{"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0, "repeat_last_n": 64, "seed": -1, "max_tokens": 1024}',NULL,'ask',NULL,NULL);
CREATE TABLE messages (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        parent_id TEXT,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        created_s REAL NOT NULL,
        stats TEXT,
        model_name TEXT NOT NULL,
        stop_note TEXT NOT NULL,
        is_complete INTEGER NOT NULL,
        UNIQUE (conversation_id, id),
        FOREIGN KEY (conversation_id, parent_id) REFERENCES messages(conversation_id, id) ON DELETE CASCADE
    ) STRICT;
INSERT INTO "messages" VALUES(1,'m1','c1',NULL,'user','Why is the sky blue?',2.0,NULL,'','',1);
INSERT INTO "messages" VALUES(2,'m2','c1','m1','assistant','Rayleigh scattering.',3.0,'{"stop_reason": "eos", "prompt_tokens": 12, "reused_tokens": 3, "completion_tokens": 41, "ttft_ms": 300.5, "prompt_tokens_per_second": null, "tokens_per_second": 18.23, "reread_tokens": 2}','Gemma 3 270M','',1);
INSERT INTO "messages" VALUES(3,'m3','c1','m1','assistant','Blue li',4.0,NULL,'','',0);
CREATE TABLE models (
        path TEXT PRIMARY KEY NOT NULL,
        last_used_s REAL,
        engine_settings TEXT,
        sampling TEXT
    ) STRICT;
INSERT INTO "models" VALUES('/models/gemma.gguf',6.0,NULL,'{"temperature": 0.2, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0, "repeat_last_n": 64, "seed": -1, "max_tokens": 1024}');
CREATE INDEX messages_by_parent ON messages(conversation_id, parent_id);
COMMIT;
