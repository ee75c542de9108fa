"""`python pooled.py MODEL < IDS > SCORES`: what vLLM's pooling makes of token sequences; JSON lists."""

import json
import os
import sys

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}

if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)  # vLLM also prints
    from vllm import LLM
    from vllm.inputs import TokensPrompt

    llm = LLM(sys.argv[1], runner="pooling", dtype="float32", max_model_len=1024, enforce_eager=True)
    outputs = llm.classify([TokensPrompt(prompt_token_ids=ids) for ids in json.load(sys.stdin)], use_tqdm=False)
    os.write(answers, json.dumps([output.outputs.probs for output in outputs]).encode())
