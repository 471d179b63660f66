using System.Runtime.InteropServices;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Kvm;

/// <summary>The mapping of a vCPU's <see cref="kvm_run"/> and the I/O data page behind it; unmapped once.</summary>
internal sealed unsafe class RunMapping : SafeHandle
{
    private readonly nuint _length;

    public RunMapping(SafeFd vcpu, int length)
        : base(-1, ownsHandle: true)
    {
        _length = (nuint)length;
        void* p = Libc.mmap(null, _length, Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_SHARED, vcpu.Value, 0);
        if ((nint)p == -1)
        {
            Check.Throw("mmap", "kvm_run");
        }

        SetHandle((nint)p);
    }

    public override bool IsInvalid => handle == -1;

    public kvm_run* Pointer => (kvm_run*)handle;

    public int Length => (int)_length;

    protected override bool ReleaseHandle() => Libc.munmap((void*)handle, _length) == 0;
}
