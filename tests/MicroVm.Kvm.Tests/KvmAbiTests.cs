using MicroVm.Kvm.Native;
using MicroVm.Tests.Shared;
using Xunit;

namespace MicroVm.Kvm.Tests;

/// <summary>Every number and struct of src/MicroVm.Kvm/Native against linux/kvm.h.</summary>
public class KvmAbiTests
{
    private static readonly string[] Headers = ["#include <stddef.h>\n#include <sys/ioctl.h>\n#include <linux/kvm.h>"];

    // Declared after the headers that some supported build machines have; compared where the header knows them.
    private static readonly string[] NewerThanHeaders = [];

    [SkippableFact]
    public void Constants_equal_the_headers()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        List<string> differences = AbiOracle.CompareConstants(typeof(KvmAbi), Headers);
        Assert.Equal(NewerThanHeaders, differences);
    }

    [SkippableFact]
    public void Structs_have_the_headers_sizes_and_offsets()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        Type[] structs = [.. AbiOracle.Structs(typeof(KvmAbi).Assembly, typeof(KvmAbi).Namespace!)
            .Where(t => t != typeof(kvm_xcr_array))];
        Assert.Contains(typeof(kvm_run), structs);
        Assert.Empty(structs.SelectMany(t => AbiOracle.CompareStruct(t, Headers)));
    }

    [SkippableFact]
    public void The_oracle_reports_wrong_and_unknown_declarations()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        Assert.Equal(
            ["KVM_GET_REGS: 1 (0x1) here, 2156965505 (0x8090ae81) in C", "KVM_NO_SUCH_NAME: no header declares it"],
            AbiOracle.CompareConstants(typeof(Wrong), Headers));
        Assert.Contains(AbiOracle.CompareStruct(typeof(kvm_mp_state_wrong), Headers, "struct kvm_mp_state"), d => d.Contains("sizeof", StringComparison.Ordinal));
    }

    private static class Wrong
    {
#pragma warning disable IDE1006 // C names
        public const uint KVM_GET_REGS = 1;
        public const int KVM_NO_SUCH_NAME = 2;
#pragma warning restore IDE1006
    }

#pragma warning disable IDE1006, CS0649 // C names; only its layout is looked at
    private struct kvm_mp_state_wrong
    {
        public ulong mp_state;
    }
#pragma warning restore IDE1006, CS0649
}
