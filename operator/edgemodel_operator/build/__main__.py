"""`python -m edgemodel_operator.build`."""

import sys

from edgemodel_operator.build.main import main

sys.exit(main())
