#!/bin/bash
# Merges the two chains of a complex and lists the residue pairs in contact across the interface.
set -euo pipefail

pdb_merge 2oob_A.pdb 2oob_B.pdb | pdb_tidy > complex.pdb
python3 contacts.py complex.pdb A B > contacts.tsv
echo "$(($(wc -l < contacts.tsv) - 1)) residue pairs of chains A and B are in contact"
