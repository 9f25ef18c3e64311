"""What captions are worth to a policy (`capjax.tasks.policy`): each module offers one `Reward`.

    config.task.rewards = dict(
        clip=dict(name="capjax.rewards.clip_similarity", run="runs/demo/encoder", weight=2.0),
        cider=dict(name="capjax.rewards.cider", document_frequencies="train.npz"),
    )

A reward is of one of two kinds. One that is a JAX function runs inside the step:

    arrays                            a tree of frozen parameters, laid out on the devices once
    look_up(keys, references)         what the host knows of pictures: {name: array [B,...]}
    tokenizer, text(captions)         rows of another vocabulary that it wants of every caption
    prepare(arrays, batch, looked_up) what it needs of the pictures, of the whole batch: [B,...]
    score(arrays, prepared, captions) float32 [b,K], of `captions.Captions`

of which only `score` must be there. One that needs strings is called by threads of the host while
the devices go on:

    score_texts(keys, references, candidates)      [b][K] strings -> numbers [b,K]

Both are better the larger they are. `look_up` and `score_texts` see the rows of their own process.

Letters: B pictures of the batch, b of a microbatch, K captions of each.
"""
