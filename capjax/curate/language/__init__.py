"""Language models behind one interface: servers, a decoder of ours, and a script for tests.

A model has `name`, `local`, `concurrency`, `identity` (JSON values on which its answers depend) and

    async complete(request, stage, ledger) -> Answer

where `stage` is the name under which the ledger counts (`capjax.curate.cache`). A local one also
has `start()`, which loads it.
"""
