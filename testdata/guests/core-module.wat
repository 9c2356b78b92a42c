(module (func (export "execute")))
