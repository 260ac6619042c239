"""Shell scripts that users of the documented API have: they work unchanged."""

import asyncio
import os
import zipfile
from pathlib import Path

from harness import Service

FIRST_JOB = r"""
cat > run.sh << 'EOF'
#!/bin/bash
echo "Hello!" > output.txt
echo "Processing complete at $(date)" >> output.txt
EOF
chmod +x run.sh
curl -s -X POST $URL/upload -F "file=@run.sh" -F "user_id=1" -F "service=example" | jq -e '
  .id == 1 and .status == "Queued" and .message == "Job successfully uploaded"'
curl -s $URL/download/1 > /dev/null
"""

POLL = r"""
while true; do
  response=$(curl -s $URL/download/1 | tr -d '\0')
  status=$(echo "$response" | jq -r '.status // empty' 2> /dev/null) || true
  if [ -z "$status" ] || [ "$status" = "Completed" ]; then
    curl -s -o results.zip $URL/download/1
    break
  fi
  sleep 0.1
done
unzip -o results.zip
grep Hello output.txt
"""

COMPLEX_JOB = r"""
echo "sample data" > input.txt
cat > run.sh << 'EOF'
#!/bin/bash
wc input.txt > stats.txt
tr 'a-z' 'A-Z' < input.txt > output.txt
echo "Done!" >> output.txt
EOF
chmod +x run.sh
curl -s -X POST $URL/upload -F "file=@run.sh" -F "file=@input.txt" -F "user_id=1" \
  -F "service=example"
curl -s -o results.zip "$URL/download/1?wait=30"
"""

TEN_JOBS = r"""
for i in {1..10}; do
echo '#!/bin/bash
sleep 30
echo "Job complete" > output.txt' > run.sh
curl -s -X POST $URL/upload -F "file=@run.sh" -F "user_id=1" -F "service=example" |
  jq -r '.status'
done
until [ "$(for i in {1..10}; do curl -s $URL/download/$i | jq -r .status; done | sort | uniq -c |
    tr -s ' \n' ' ')" = " 5 Queued 5 Running " ]; do sleep 0.1; done
for i in {10..1}; do curl -s -X POST $URL/terminate/$i | jq -r .status; done
"""


async def run(server: Service, folder: Path, script: str) -> str:
    """Run a script that uses a server, and return its output."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "URL": server.url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_first_job_and_polling_loop_fetch_the_result(server: Service, tmp_path: Path) -> None:
    assert "Hello!" in await run(server, tmp_path, FIRST_JOB + POLL)


async def test_more_complex_example_fetches_its_results(server: Service, tmp_path: Path) -> None:
    await run(server, tmp_path, COMPLEX_JOB)
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.read("output.txt") == b"SAMPLE DATA\nDone!\n"
        assert archive.read("stats.txt").split() == [b"1", b"2", b"12", b"input.txt"]


async def test_ten_jobs_of_one_user_run_five_at_a_time(server: Service, tmp_path: Path) -> None:
    output = await run(server, tmp_path, TEN_JOBS)
    assert output.split() == ["Queued"] * 10 + ["Killed"] * 10
    assert "User 1 has 5/5 jobs running for service 'example', job 6 remains queued" in (
        server.logged
    )
