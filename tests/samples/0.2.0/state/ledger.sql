PRAGMA user_version = 3;
BEGIN TRANSACTION;
CREATE TABLE counters (name TEXT PRIMARY KEY, count INTEGER NOT NULL);
INSERT INTO "counters" VALUES('lost pops',1);
CREATE TABLE days (
    day TEXT, model TEXT, state TEXT, images INTEGER, kudos REAL,
    PRIMARY KEY (day, model, state)
);
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    model TEXT NOT NULL,
    upload_url TEXT NOT NULL,
    over_at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'popped',
    seed TEXT NOT NULL DEFAULT '0',
    webp BLOB,
    prompt TEXT NOT NULL DEFAULT '',
    use_nsfw_censor INTEGER NOT NULL DEFAULT 0,
    notes TEXT NOT NULL DEFAULT '[]',
    reason TEXT NOT NULL DEFAULT '',
    kudos REAL NOT NULL DEFAULT 0,
    is_drop INTEGER NOT NULL DEFAULT 0,
    ended_at REAL
, kind TEXT NOT NULL DEFAULT 'image');
INSERT INTO "images" VALUES('done-0','done-0',0,2,'Deliberate','https://put.example/done-0',1.79611857484725022317e+09,'submitted','0',NULL,'',0,'[]','',5.5,0,1.79611836484768581392e+09,'image');
INSERT INTO "images" VALUES('done-1','done-0',1,2,'Deliberate','https://put.example/done-1',1.79611857484725022317e+09,'submitted','0',NULL,'',0,'[]','',5.5,0,1.79611836484768581392e+09,'image');
INSERT INTO "images" VALUES('dropped-0','dropped-0',0,1,'Deliberate','https://put.example/dropped-0',1.79611857484725022317e+09,'faulted','0',NULL,'',0,'[]','it broke',0.0,1,1.79611836484768581392e+09,'image');
INSERT INTO "images" VALUES('made-0','made-0',0,1,'Deliberate','https://put.example/made-0',1.79611857484725022317e+09,'made','18446744073709551615',X'524946462E2E2E2E5745425020612070696374757265','a cat###a dog',1,'[{"type": "lora", "value": "download_failed", "ref": "a LoRA"}]','',0.0,0,NULL,'image');
INSERT INTO "images" VALUES('popped-0','popped-0',0,1,'Deliberate','https://put.example/popped-0',1.79611857484725022317e+09,'popped','0',NULL,'',0,'[]','',0.0,0,NULL,'image');
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    asked TEXT NOT NULL,
    lives INTEGER NOT NULL DEFAULT 1
);
INSERT INTO "jobs" VALUES('popped-0','{"id": "popped-0", "ids": ["popped-0"], "payload": {"prompt": "a red circle", "n_iter": 1, "seed": "7", "width": 64, "height": 64, "ddim_steps": 3, "sampler_name": "k_euler", "cfg_scale": 5.0}, "model": "Deliberate", "r2_uploads": ["https://put.example/popped-0"], "ttl": 200, "skipped": {}}',1);
CREATE INDEX ended ON images (ended_at);
CREATE TRIGGER asked_no_more AFTER UPDATE OF state ON images BEGIN
    DELETE FROM jobs WHERE id = NEW.job;
END;
COMMIT;
