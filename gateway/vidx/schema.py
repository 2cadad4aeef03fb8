"""The schema of vidx 1.0, as it stands in `contracts/vidx-1.0.xsd`.

It is part of the code: what is validated against cannot be changed by a file, a document or a partner. A test holds it
to the contract, octet for octet, and to the digest that the contract's page names.
"""

XSD = rb"""<?xml version="1.0" encoding="UTF-8"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:v="urn:partner-exchange:vidx:1.0"
           targetNamespace="urn:partner-exchange:vidx:1.0" elementFormDefault="qualified" version="1.0">
  <xs:annotation>
    <xs:documentation>
      The case report vidx 1.0. What each element means, and the rules that a schema cannot state, stand in vidx-1.0.md.
      Names are those of NIEM 6 and UMF where those have the concept; no foreign schema is imported. Values keep their
      blanks: nothing is collapsed but around numbers and dates.
    </xs:documentation>
  </xs:annotation>

  <xs:element name="CaseReport" type="v:CaseReportType">
    <xs:unique name="ReportGroupOnce"><xs:selector xpath="v:ReportFieldGroupCode"/><xs:field xpath="."/></xs:unique>
    <xs:unique name="ReportVictimOnce">
      <xs:selector xpath="v:Victim"/>
      <xs:field xpath="v:VictimReferenceID"/>
    </xs:unique>
    <xs:unique name="ReportPersonOnce">
      <xs:selector xpath="v:PersonOfInterest"/><xs:field xpath="v:PersonReferenceID"/>
    </xs:unique>
  </xs:element>

  <xs:element name="CaseDraft" type="v:CaseDraftType">
    <xs:unique name="DraftGroupOnce"><xs:selector xpath="v:ReportFieldGroupCode"/><xs:field xpath="."/></xs:unique>
    <xs:unique name="DraftVictimOnce">
      <xs:selector xpath="v:Victim"/>
      <xs:field xpath="v:VictimReferenceID"/>
    </xs:unique>
    <xs:unique name="DraftPersonOnce">
      <xs:selector xpath="v:PersonOfInterest"/><xs:field xpath="v:PersonReferenceID"/>
    </xs:unique>
  </xs:element>

  <xs:complexType name="CaseReportType">
    <xs:annotation>
      <xs:documentation>What goes to a partner: all that law and policy need is stated.</xs:documentation>
    </xs:annotation>
    <xs:sequence>
      <xs:group ref="v:Identity"/>
      <xs:element name="HandlingCode" type="v:HandlingCodeType"/>
      <xs:element name="CaseCategoryText" type="v:CategoryType"/>
      <xs:element name="EvaluationCode" type="v:EvaluationType"/>
      <xs:element name="LegalBasisText" type="v:LineType"/>
      <xs:element name="PurposeCode" type="v:PurposeType"/>
      <xs:element name="ReviewDate" type="v:DateType"/>
      <xs:group ref="v:Content"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="CaseDraftType">
    <xs:annotation>
      <xs:documentation>What waits at home for a person: it may lack what a report must state.</xs:documentation>
    </xs:annotation>
    <xs:sequence>
      <xs:group ref="v:Identity"/>
      <xs:element name="HandlingCode" type="v:HandlingCodeType" minOccurs="0"/>
      <xs:element name="CaseCategoryText" type="v:CategoryType" minOccurs="0"/>
      <xs:element name="EvaluationCode" type="v:EvaluationType" minOccurs="0"/>
      <xs:element name="LegalBasisText" type="v:LineType" minOccurs="0"/>
      <xs:element name="PurposeCode" type="v:PurposeType" minOccurs="0"/>
      <xs:element name="ReviewDate" type="v:DateType" minOccurs="0"/>
      <xs:group ref="v:Content"/>
    </xs:sequence>
  </xs:complexType>

  <xs:group name="Identity">
    <xs:sequence>
      <xs:element name="ReportFieldGroupCode" type="v:FieldGroupType" maxOccurs="9"/>
      <xs:element name="CaseOriginatingAgencyID" type="v:AgencyType"/>
      <xs:element name="CaseTrackingID" type="v:ReferenceType"/>
      <xs:element name="CaseVersionNumber" type="v:VersionType"/>
      <xs:element name="CaseOpenedDateTime" type="v:DateTimeType"/>
      <xs:element name="CaseLastModifiedDateTime" type="v:DateTimeType"/>
      <xs:element name="CaseUrgencyCode" type="v:UrgencyType"/>
    </xs:sequence>
  </xs:group>

  <xs:group name="Content">
    <xs:sequence>
      <xs:element name="RestrictionCode" type="v:RestrictionType" minOccurs="0" maxOccurs="4"/>
      <xs:element name="OnwardJurisdictionCode" type="v:JurisdictionType" minOccurs="0" maxOccurs="676"/>
      <xs:element name="HashEntryReference" type="v:HashEntryReferenceType" minOccurs="0" maxOccurs="4096">
        <xs:unique name="HashOnce">
          <xs:selector xpath="v:BinaryHash"/>
          <xs:field xpath="v:BinaryHashFunctionCode"/>
        </xs:unique>
      </xs:element>
      <xs:element name="Series" type="v:SeriesType" minOccurs="0" maxOccurs="256"/>
      <xs:element name="Victim" type="v:VictimType" minOccurs="0" maxOccurs="256"/>
      <xs:element name="CaseDescriptionText" type="v:NoteType" minOccurs="0"/>
      <xs:element name="Clue" type="v:ClueType" minOccurs="0" maxOccurs="256"/>
      <xs:element name="TimeFrame" type="v:TimeFrameType" minOccurs="0" maxOccurs="256"/>
      <xs:element name="Location" type="v:LocationType" minOccurs="0" maxOccurs="256"/>
      <xs:element name="PersonOfInterest" type="v:PersonType" minOccurs="0" maxOccurs="256"/>
      <xs:element name="ContactInformation" type="v:ContactType" minOccurs="0"/>
      <xs:element name="CaseAugmentation" type="v:AugmentationType" minOccurs="0" maxOccurs="256"/>
    </xs:sequence>
  </xs:group>

  <xs:complexType name="HashEntryReferenceType">
    <xs:choice>
      <xs:sequence>
        <xs:element name="HashSetName" type="v:SetNameType"/>
        <xs:element name="HashEntryID" type="v:EntryIDType"/>
        <xs:element name="BinaryHash" type="v:BinaryHashType" minOccurs="0" maxOccurs="5"/>
      </xs:sequence>
      <xs:element name="BinaryHash" type="v:BinaryHashType" maxOccurs="5"/>
    </xs:choice>
  </xs:complexType>

  <xs:complexType name="BinaryHashType">
    <xs:sequence>
      <xs:element name="BinaryHashFunctionCode" type="v:HashFunctionType"/>
      <xs:element name="BinaryHashCode" type="v:HexType"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="SeriesType">
    <xs:sequence>
      <xs:element name="SeriesName" type="v:LineType"/>
      <xs:element name="SeriesOwnerAgencyID" type="v:AgencyType"/>
      <xs:element name="SeriesAliasName" type="v:LineType" minOccurs="0" maxOccurs="256"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="VictimType">
    <xs:sequence>
      <xs:element name="VictimReferenceID" type="v:ReferenceType"/>
      <xs:element name="VictimStatus" type="v:StatusType" minOccurs="0" maxOccurs="64"/>
      <xs:element name="PersonAgeMeasure" type="v:AgeType" minOccurs="0"/>
      <xs:element name="PersonSexCode" type="v:SexType"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="StatusType">
    <xs:sequence>
      <xs:element name="StatusCode" type="v:StatusCodeType"/>
      <xs:element name="StatusIssuerAgencyID" type="v:AgencyType"/>
      <xs:element name="StatusDateTime" type="v:DateTimeType"/>
      <xs:element name="StatusReasonText" type="v:LineType" minOccurs="0"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="AgeType">
    <xs:sequence>
      <xs:element name="RangeMinimumIntegerValue" type="v:YearsType"/>
      <xs:element name="RangeMaximumIntegerValue" type="v:YearsType"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="ClueType">
    <xs:sequence>
      <xs:element name="ClueCategoryCode" type="v:ClueKindType"/>
      <xs:element name="ClueDescriptionText" type="v:NoteType"/>
      <xs:element name="ConfidencePercent" type="v:PercentType"/>
      <xs:element name="SourceCode" type="v:SourceType"/>
      <xs:element name="ObservationDate" type="v:DateType" minOccurs="0"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="TimeFrameType">
    <xs:sequence>
      <xs:choice>
        <xs:sequence>
          <xs:element name="StartDate" type="v:DateType"/>
          <xs:element name="EndDate" type="v:DateType" minOccurs="0"/>
        </xs:sequence>
        <xs:element name="EndDate" type="v:DateType"/>
      </xs:choice>
      <xs:element name="TimeFrameDescriptionText" type="v:NoteType" minOccurs="0"/>
      <xs:element name="ConfidencePercent" type="v:PercentType"/>
      <xs:element name="SourceCode" type="v:SourceType"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="LocationType">
    <xs:sequence>
      <xs:choice>
        <xs:sequence>
          <xs:element name="LocationCountryCode" type="v:JurisdictionType"/>
          <xs:element name="LocationRegionText" type="v:LineType" minOccurs="0"/>
          <xs:element name="LocationDescriptionText" type="v:NoteType" minOccurs="0"/>
        </xs:sequence>
        <xs:element name="LocationDescriptionText" type="v:NoteType"/>
      </xs:choice>
      <xs:element name="ConfidencePercent" type="v:PercentType"/>
      <xs:element name="SourceCode" type="v:SourceType"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="PersonType">
    <xs:sequence>
      <xs:element name="PersonReferenceID" type="v:ReferenceType"/>
      <xs:element name="PersonRoleCode" type="v:RoleType"/>
      <xs:element name="PhysicalFeature" type="v:FeatureType" minOccurs="0" maxOccurs="256"/>
      <xs:element name="PersonDescriptionText" type="v:NoteType" minOccurs="0"/>
      <xs:element name="PersonAgeMeasure" type="v:AgeType" minOccurs="0"/>
      <xs:element name="PersonSexCode" type="v:SexType"/>
      <xs:element name="PublicReleaseIndicator" type="v:IndicatorType"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="FeatureType">
    <xs:sequence>
      <xs:element name="PhysicalFeatureCategoryCode" type="v:MarkKindType"/>
      <xs:element name="PhysicalFeatureLocationText" type="v:LineType" minOccurs="0"/>
      <xs:element name="PhysicalFeatureDescriptionText" type="v:NoteType"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="ContactType">
    <xs:sequence>
      <xs:element name="OrganizationUnitName" type="v:LineType"/>
      <xs:element name="ContactTelephoneNumber" type="v:LineType" minOccurs="0"/>
      <xs:element name="ContactEmailID" type="v:LineType" minOccurs="0"/>
      <xs:element name="ContactDutyTelephoneNumber" type="v:LineType" minOccurs="0"/>
    </xs:sequence>
  </xs:complexType>

  <xs:complexType name="AugmentationType">
    <xs:annotation>
      <xs:documentation>The one extension point: what partners agreed on beyond this contract.</xs:documentation>
    </xs:annotation>
    <xs:sequence>
      <xs:element name="AugmentationName" type="v:LineType"/>
      <xs:element name="AugmentationText" type="v:NoteType" minOccurs="0"/>
    </xs:sequence>
  </xs:complexType>

  <xs:simpleType name="NoteType">
    <xs:annotation>
      <xs:documentation>Text of one or more lines: tabs and line feeds, no other control characters.</xs:documentation>
    </xs:annotation>
    <xs:restriction base="xs:string">
      <xs:minLength value="1"/>
      <xs:maxLength value="4000"/>
      <xs:pattern value="[^&#xD;&#x7F;-&#x9F;]*"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="LineType">
    <xs:annotation>
      <xs:documentation>One line of text without a blank before or after it.</xs:documentation>
    </xs:annotation>
    <xs:restriction base="v:NoteType">
      <xs:maxLength value="256"/>
      <xs:pattern value="[^ &#x9;&#xA;]([^&#x9;&#xA;]*[^ &#x9;&#xA;])?"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="ReferenceType">
    <xs:restriction base="v:LineType"><xs:maxLength value="128"/></xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="AgencyType">
    <xs:restriction base="xs:string"><xs:pattern value="[A-Z]{2}-[A-Z0-9]{2,16}"/></xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="JurisdictionType">
    <xs:annotation><xs:documentation>ISO 3166-1 alpha-2.</xs:documentation></xs:annotation>
    <xs:restriction base="xs:string"><xs:pattern value="[A-Z]{2}"/></xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="SetNameType">
    <xs:restriction base="xs:string">
      <xs:pattern value="[A-Z]{2}-[A-Z0-9]{2,16}/[a-z0-9][a-z0-9\-]{0,46}"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="CategoryType">
    <xs:annotation><xs:documentation>scheme:code</xs:documentation></xs:annotation>
    <xs:restriction base="xs:string">
      <xs:pattern value="[A-Za-z0-9._\-]{1,32}:[A-Za-z0-9._\-]{1,32}"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="EvaluationType">
    <xs:annotation><xs:documentation>Source A to F, information 1 to 6.</xs:documentation></xs:annotation>
    <xs:restriction base="xs:string"><xs:pattern value="[A-F][1-6]"/></xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="DateType">
    <xs:restriction base="xs:date">
      <xs:pattern value="([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="DateTimeType">
    <xs:annotation><xs:documentation>UTC, full seconds, from 1970 on.</xs:documentation></xs:annotation>
    <xs:restriction base="xs:dateTime">
      <xs:pattern value="(19[7-9][0-9]|[2-9][0-9]{3})-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}Z"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="VersionType">
    <xs:restriction base="xs:positiveInteger">
      <xs:pattern value="[1-9][0-9]*"/>
      <xs:maxInclusive value="2147483647"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="EntryIDType">
    <xs:restriction base="xs:positiveInteger">
      <xs:pattern value="[1-9][0-9]*"/>
      <xs:maxInclusive value="18446744073709551615"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="YearsType">
    <xs:restriction base="xs:nonNegativeInteger">
      <xs:pattern value="0|[1-9][0-9]*"/>
      <xs:maxInclusive value="120"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="PercentType">
    <xs:restriction base="xs:nonNegativeInteger">
      <xs:pattern value="0|[1-9][0-9]*"/>
      <xs:maxInclusive value="100"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="IndicatorType">
    <xs:restriction base="xs:boolean"><xs:pattern value="true|false"/></xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="HexType">
    <xs:annotation>
      <xs:documentation>Lower-case hexadecimal, as long as the function's value is.</xs:documentation>
    </xs:annotation>
    <xs:restriction base="xs:string">
      <xs:pattern value="([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="FieldGroupType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="existence"/>
      <xs:enumeration value="cryptographic_digests"/>
      <xs:enumeration value="perceptual_digests"/>
      <xs:enumeration value="series"/>
      <xs:enumeration value="victim_status"/>
      <xs:enumeration value="case_summary"/>
      <xs:enumeration value="clues"/>
      <xs:enumeration value="persons"/>
      <xs:enumeration value="contact"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="UrgencyType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="routine"/>
      <xs:enumeration value="priority"/>
      <xs:enumeration value="child_at_risk"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="HandlingCodeType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="H0"/>
      <xs:enumeration value="H1"/>
      <xs:enumeration value="H2"/>
      <xs:enumeration value="H3"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="PurposeType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="victim_identification"/>
      <xs:enumeration value="safeguarding"/>
      <xs:enumeration value="prosecution"/>
      <xs:enumeration value="statistics"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="RestrictionType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="embargo"/>
      <xs:enumeration value="legal_hold"/>
      <xs:enumeration value="court_order"/>
      <xs:enumeration value="originator_control"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="HashFunctionType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="MD5"/>
      <xs:enumeration value="PDQ"/>
      <xs:enumeration value="SHA-1"/>
      <xs:enumeration value="SHA-256"/>
      <xs:enumeration value="SHA-512"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="StatusCodeType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="unidentified"/>
      <xs:enumeration value="lead"/>
      <xs:enumeration value="identified"/>
      <xs:enumeration value="safeguarded"/>
      <xs:enumeration value="closed"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="SexType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="female"/>
      <xs:enumeration value="male"/>
      <xs:enumeration value="unknown"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="ClueKindType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="object"/>
      <xs:enumeration value="product"/>
      <xs:enumeration value="writing"/>
      <xs:enumeration value="speech"/>
      <xs:enumeration value="interior"/>
      <xs:enumeration value="building"/>
      <xs:enumeration value="landscape"/>
      <xs:enumeration value="vegetation"/>
      <xs:enumeration value="clothing"/>
      <xs:enumeration value="vehicle"/>
      <xs:enumeration value="device_data"/>
      <xs:enumeration value="account"/>
      <xs:enumeration value="other"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="SourceType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="analyst"/>
      <xs:enumeration value="laboratory"/>
      <xs:enumeration value="open_source"/>
      <xs:enumeration value="device_data"/>
      <xs:enumeration value="hotline"/>
      <xs:enumeration value="partner"/>
      <xs:enumeration value="public"/>
      <xs:enumeration value="other"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="MarkKindType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="tattoo"/>
      <xs:enumeration value="scar"/>
      <xs:enumeration value="birthmark"/>
      <xs:enumeration value="piercing"/>
      <xs:enumeration value="jewellery"/>
      <xs:enumeration value="voice"/>
      <xs:enumeration value="other"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="RoleType">
    <xs:restriction base="xs:string">
      <xs:enumeration value="unknown_adult"/>
      <xs:enumeration value="suspect"/>
      <xs:enumeration value="witness"/>
    </xs:restriction>
  </xs:simpleType>
</xs:schema>
"""
