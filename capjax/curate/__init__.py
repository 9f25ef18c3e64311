"""Curation: what makes a training set out of raw records.

A stage is a pure function of one record (and of counts over the whole corpus, where a rule needs
them): it keeps, drops or rewrites it and says why. Stages know nothing of files, processes or
machines; the engines that feed them shards and restart them are modules of their own, so that a
stage gives the same answer in a test, in a notebook and over a hundred million pictures.
"""
