"`python -m oczss` is the command `oczss`; of several processes that a launcher starts, the first speaks for all."
import os
import sys
from contextlib import redirect_stdout
from .cli import main

def several():
    "The command in one of several processes; only training can be shared."
    if sys.argv[1:2] != ['train']:
        print('oczss: only `oczss train` works in several processes: start this command once', file=sys.stderr)
        return 2
    if os.environ.get('RANK') == '0': return main()
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere): return main()

if __name__ == '__main__': sys.exit(main() if os.environ.get('WORLD_SIZE', '1') == '1' else several())
