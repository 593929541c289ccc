"`python -m oczss` is the command `oczss`."
import sys
from .cli import main

if __name__ == '__main__': sys.exit(main())
