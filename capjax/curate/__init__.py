"""Curation: what makes a training set out of raw records.

    stage, pipeline       what is done to a record, and in which order
    content, cache        results kept by what they depend on; what was paid
    calls, flow           stages called on records, wherever they run
    workers, local        processes for models and for Python; the engine of one machine
    on_ray                the engine of a cluster
    segments, parts       a job in pieces, its folder, what is there after a kill
    language/             language models: servers, a decoder of ours, prompts, answers
    stages/               stages that many pipelines share
    dedup/, align_filter  near duplicates; ALIGN's rules
    finished, report, compare    what came out

A stage is a pure function of one record (or of all, where a rule needs them): it keeps, drops or
rewrites it and says why. Stages know nothing of files, processes or machines, so that a stage gives
the same answer in a test, in a notebook and over a hundred million pictures.
"""
